package storetest

var logPromises, sweepPromises, modelPromises []promise
