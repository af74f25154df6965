package neighbour

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	// The binary is built by a process of its own, which the test cache does not
	// see: importing what is in it makes a changed binary a changed test.
	_ "github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/tally"
)

var long = flag.Bool("long", os.Getenv("POSTHORN_TORTURE") == "long", "attacks in full, and judge how long the victim waits")

// What the victim may notice: p99 under enough, or under so many times what it was alone.
const (
	enough  = 20 * time.Millisecond
	atMost  = 3
	windows = 3
)

var binary string

func TestMain(m *testing.M) {
	if name := os.Getenv(attackEnv); name != "" {
		os.Exit(attackMain(name))
	}
	flag.Parse()
	os.Exit(proof.WithBinary(&binary, m.Run))
}

// TestNobodyPaysForANeighbour makes each attack on a server of its own.
func TestNobodyPaysForANeighbour(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			if !*long {
				t.Parallel()
			}
			a.try(t)
		})
	}
}

// try makes one attack and judges what the victim noticed.
func (a *attack) try(t *testing.T) {
	limit := time.Minute
	if *long {
		limit = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("the attack took longer than %s", limit))
	defer cancel()
	s, err := proof.Start(ctx, proof.Options{Binary: binary, Dir: t.TempDir(),
		Args: append([]string{"--log-level", "warn", "--token-rate", "0"}, a.flags...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	admin, err := s.Command(ctx, "token", "create", "--platform", "--store", s.Store(),
		"--scope", "admin", "--scope", "webhooks:read", "--scope", "webhooks:write", "--scope", "events:publish")
	if err != nil {
		t.Fatal(err)
	}
	platform := proof.API{URL: s.URL(), Token: strings.TrimSpace(admin)}
	v, err := newVictim(ctx, t, platform)
	if err != nil {
		t.Fatal(err)
	}
	window := 5 * time.Second
	if !*long {
		window = time.Second / 2
	}
	v.measure(ctx, window) // connections, statements, targets
	alone := v.measure(ctx, window)
	hostile, err := startAttack(ctx, t, a, s, platform)
	if err != nil {
		t.Fatal(err)
	}
	under := []noticed{}
	for range windows {
		under = append(under, v.measure(ctx, window))
		if err := hostile.running(); err != nil {
			t.Fatal(err)
		}
		if !*long {
			break
		}
	}
	did := hostile.stop()
	median := medians(under)
	t.Logf("%s: the attackers say: %s", a.name, did)
	t.Logf("alone   %v\nbeside  %v", alone, median)
	cases := 0
	for _, u := range under {
		cases += u.asked
		for _, r := range u.refused {
			t.Errorf("the victim was refused: %s", r)
		}
	}
	if *long {
		median.judge(t, alone)
	}
	tally.Count(t, "nobody pays for a neighbour that takes ten times its share", cases)
}
