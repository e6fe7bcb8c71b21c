package job

import "testing"

// News reach all who wait for them and nobody else, once however often they
// come, and nobody who waits no more.
func TestNews(t *testing.T) {
	var n News
	n.Tell("a") // nobody waits
	first, forget := n.Wait("a")
	second, forgetSecond := n.Wait("a")
	other, forgetOther := n.Wait("b")
	n.Tell("a")
	n.Tell("a")
	heard := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	if !heard(first) || !heard(second) || heard(first) || heard(other) {
		t.Error("the wrong ones were told")
	}
	forget()
	n.Tell("a")
	if heard(first) || !heard(second) {
		t.Error("after one waits no more")
	}
	forgetSecond()
	forgetOther()
	if len(n.waiting) != 0 {
		t.Errorf("left: %v", n.waiting)
	}
}
