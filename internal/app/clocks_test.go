package app

import (
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/doctor"
	"github.com/posthorn/posthorn/internal/store/postgres"
)

func TestDoctorSaysWhoseClockIsWrong(t *testing.T) {
	right, wrong := postgres.ClockOf{Ahead: 100 * time.Millisecond}, postgres.ClockOf{Ahead: time.Hour, Wrong: true}
	off := postgres.ClockOf{Ahead: -90 * time.Second}
	for _, c := range []struct {
		what  string
		nodes []postgres.ClockOf
		own   time.Duration
		want  string // what stands in the faults; empty for none
	}{
		{"all agree", []postgres.ClockOf{right, right}, 0, ""},
		{"no node serves", nil, 0, ""},
		{"no node serves, and this machine is off", nil, -time.Minute, "this machine's clock is -60.0 s from the database's"},
		{"one node is off", []postgres.ClockOf{right, right, wrong}, 0, "the clock of one of 3 nodes is +3600.0 s from the database's"},
		{"the database is off", []postgres.ClockOf{off, off}, -90 * time.Second, "the database's clock is +90.0 s from that of the nodes"},
		{"this machine is off, and no node is on it", []postgres.ClockOf{right}, time.Hour, ""},
		{"both", []postgres.ClockOf{off, off, wrong}, 0, "the database's clock is +90.0 s from that of the nodes"},
	} {
		var faults []string
		for _, f := range judgeClocks(c.nodes, c.own) {
			if f.State == doctor.Wrong {
				faults = append(faults, f.What)
				if !strings.Contains(f.Mend, byNTP) {
					t.Errorf("%s: the fix is %q", c.what, f.Mend)
				}
			}
		}
		if said := strings.Join(faults, "; "); c.want == "" && said != "" || !strings.Contains(said, c.want) {
			t.Errorf("%s: %q", c.what, said)
		}
	}
}
