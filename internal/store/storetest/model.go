package storetest

var modelPromises []promise
