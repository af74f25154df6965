package main

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/check"
	"github.com/posthorn/posthorn/webhook"
)

func TestTheExampleIsAGoodReceiver(t *testing.T) {
	secret := webhook.NewSecret()
	jobs := make(chan *webhook.Event, 100)
	h, err := handler([]string{secret}, jobs)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	err = check.Run(t.Context(), check.Target{URL: server.URL, Secret: secret, Slowly: time.Millisecond}, func(f check.Finding) {
		if f.Grade != check.OK {
			t.Errorf("%+v", f)
		}
	})
	if err != nil {
		t.Error(err)
	}
	close(jobs)
	n := 0
	for e := range jobs {
		n++
		work(e)
	}
	if n != 8 {
		t.Errorf("%d events were taken, want each good one once", n)
	}
}

func TestTheExampleSaysThatItIsFull(t *testing.T) {
	secret := webhook.NewSecret()
	h, err := handler([]string{secret}, make(chan *webhook.Event))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	first := true
	err = check.Run(t.Context(), check.Target{URL: server.URL, Secret: secret}, func(f check.Finding) {
		if first && f.Status != 503 {
			t.Errorf("%+v", f)
		}
		first = false
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := handler(nil, nil); err == nil {
		t.Error("a receiver without a secret")
	}
}
