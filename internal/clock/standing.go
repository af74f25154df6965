package clock

import "time"

// Apart is how far clocks may differ that agree.
const Apart = time.Second

// Standing is what the nodes of a database say of a node's clock.
type Standing struct {
	// Wrong: this node's clock is not what most others' are. It must neither send nor
	// delete.
	Wrong bool
	// DatabaseWrong: the nodes agree, and the database's clock is another.
	DatabaseWrong bool
}

// Judge compares wall clocks, each as how far it is ahead of the database's: this
// node's, and those of the other nodes that live. Whoever has more nodes at his side
// is right. The database counts less than a node: it decides only where nodes are as
// many on both sides. Where that leaves two sides equal, both are wrong. A node alone
// is right, as it agrees with all nodes.
func Judge(mine time.Duration, others []time.Duration) Standing {
	const node, database = 2, 1
	votes := func(ahead time.Duration) (n int) {
		for _, other := range append([]time.Duration{mine}, others...) {
			if agree(ahead, other) {
				n += node
			}
		}
		if agree(ahead, 0) {
			n += database
		}
		return n
	}
	own := votes(mine)
	s := Standing{DatabaseWrong: !agree(mine, 0)}
	for _, other := range append([]time.Duration{0}, others...) {
		if !agree(mine, other) && votes(other) >= own {
			return Standing{Wrong: true}
		}
	}
	return s
}

func agree(a, b time.Duration) bool { return max(a-b, b-a) <= Apart }
