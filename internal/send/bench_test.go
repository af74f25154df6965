package send_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/posthorn/posthorn/internal/send"
)

// BenchmarkSend measures attempts on kept connections to a receiver that does
// as little as possible. Both ends run in this process and are counted.
func BenchmarkSend(b *testing.B) {
	for _, mode := range []string{"plain", "TLS"} {
		b.Run(mode, func(b *testing.B) {
			ca := newAuthority(b)
			serve := func(_ *receiver, c net.Conn) { acknowledge(c) }
			r := listen(b, nil, serve)
			url := r.URL()
			if mode == "TLS" {
				r = listen(b, ca.Server(b, nil), serve)
				url = r.URLS()
			}
			c := newClient(b, func(c *send.Config) { c.CAs = ca.Pool })
			req := request(url)
			req.Body = bytes.Repeat([]byte("x"), 1024)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if a := c.Send(b.Context(), req); !a.Succeeded() {
						b.Error(a.Explain())
						return
					}
				}
			})
		})
	}
}

// BenchmarkHTTPClient is what the standard library's client takes for the same
// exchange without signing, judging or keeping anything: the yardstick.
func BenchmarkHTTPClient(b *testing.B) {
	r := listen(b, nil, func(_ *receiver, c net.Conn) { acknowledge(c) })
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}
	defer client.CloseIdleConnections()
	body := bytes.Repeat([]byte("x"), 1024)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Post(r.URL(), "application/json", bytes.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}

// acknowledge answers each request whose head and body come in a piece.
func acknowledge(c net.Conn) {
	br := bufio.NewReaderSize(c, 8<<10)
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
	for {
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := br.Discard(1024); err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}
