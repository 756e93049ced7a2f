package network

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

func BenchmarkConnect(b *testing.B) {
	for _, c := range []struct {
		name  string
		spare int
		pause time.Duration
		ports []string
	}{
		{"busy", 0, 0, nil}, {"busy-port", 0, 0, []string{"8080:80"}},
		{"idle", 0, 60 * time.Millisecond, nil}, {"idle-port", 0, 60 * time.Millisecond, []string{"8080:80"}},
		{"idle-spare", 2, 60 * time.Millisecond, nil}, {"idle-spare-port", 2, 60 * time.Millisecond, []string{"8080:80"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := newHost(b, Options{Spare: c.spare})
			h.remove(b, h.run(b, "warm", c.ports...))
			var connect, disconnect time.Duration
			for i := range b.N {
				// The engine does other things between two starts.
				time.Sleep(c.pause)
				req := h.request(fmt.Sprint("c", i), c.ports...)
				t0 := time.Now()
				s, err := h.Connect(context.Background(), req)
				t1 := time.Now()
				if err != nil {
					b.Fatal(err)
				}
				s.NetNS.Close()
				t2 := time.Now()
				if err := h.Disconnect(context.Background(), req.ContainerID); err != nil {
					b.Fatal(err)
				}
				connect += t1.Sub(t0)
				disconnect += time.Since(t2)
			}
			b.ReportMetric(float64(connect.Microseconds())/float64(b.N), "µs/connect")
			b.ReportMetric(float64(disconnect.Microseconds())/float64(b.N), "µs/disconnect")
		})
	}
}

// BenchmarkTwenty starts 20 containers at once; one operation is all of them.
func BenchmarkTwenty(b *testing.B) {
	h := newHost(b, Options{Spare: 2})
	h.remove(b, h.run(b, "warm"))
	for b.Loop() {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				req := h.request(fmt.Sprint("c", i), "0:80")
				s, err := h.Connect(context.Background(), req)
				if err != nil {
					b.Error(err)
					return
				}
				s.NetNS.Close()
				if err := h.Disconnect(context.Background(), req.ContainerID); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
