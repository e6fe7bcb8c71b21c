package job

import (
	"cmp"
	"context"
	"sync"
	"time"
)

// Set is the jobs that run in this process, by ID: whoever asks for one that
// runs already gets that one. A job owns its work; the requests that wait for
// it come and go. A Set is safe for concurrent use.
type Set[R any] struct {
	most, ofGroup int

	mu      sync.Mutex // guards what follows, and all of each job but what it made
	running map[string]*Job[R]
	groups  map[string]int // how many run, by group
}

// Job is work that runs, or has ended.
type Job[R any] struct {
	// Made is what came of it, and Err why nothing did. They may be read
	// after the end only: when Wait has said so.
	Made R
	Err  error

	done  chan struct{} // closed at the end
	begun time.Time
	group string
	task  Task

	promised bool // by Promise
	gaveUp   bool // by GiveUp
}

// Task describes a job to those who ask about it.
type Task struct {
	About string               // in the starter's own words
	Left  func() time.Duration // an estimate of the time to its end, quick to make; nil: soon
	Most  int                  // of its group at once, where that isn't as many as of any
}

// NewSet makes a set of which so many run at once, and of one group so many.
func NewSet[R any](most, ofGroup int) *Set[R] {
	return &Set[R]{most: most, ofGroup: ofGroup, running: make(map[string]*Job[R]), groups: make(map[string]int)}
}

// Start runs work in the background, unless a job of this ID runs already:
// then it returns that one. It returns nil when as many run as may, in all or
// of the group ("": of none): the caller leaves the work to the database. The
// context of the work has the caller's values, and outlives it.
func (s *Set[R]) Start(ctx context.Context, id, group string, t Task, work func(context.Context) (R, error)) *Job[R] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j, ok := s.running[id]; ok {
		return j
	}
	if len(s.running) >= s.most || group != "" && s.groups[group] >= cmp.Or(t.Most, s.ofGroup) {
		return nil
	}
	j := &Job[R]{done: make(chan struct{}), begun: time.Now(), group: group, task: t}
	s.running[id] = j
	s.groups[group]++
	go func() {
		defer close(j.done)
		defer s.end(id, j)
		j.Made, j.Err = work(context.WithoutCancel(ctx))
	}()
	return j
}

// Full reports whether as many run as may, in all.
func (s *Set[R]) Full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running) >= s.most
}

func (s *Set[R]) end(id string, j *Job[R]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, id)
	if s.groups[j.group]--; s.groups[j.group] == 0 {
		delete(s.groups, j.group)
	}
}

// Wait waits for the job's end, at most for the time given or until the
// caller hangs up, and says whether it ended.
func (j *Job[R]) Wait(ctx context.Context, most time.Duration) bool {
	select { // the common case, without a timer
	case <-j.done:
		return true
	default:
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-j.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// Idle waits until nothing runs or ctx ends, for a graceful stop.
func (s *Set[R]) Idle(ctx context.Context) {
	for {
		s.mu.Lock()
		var any *Job[R]
		for _, any = range s.running {
			break
		}
		s.mu.Unlock()
		if any == nil {
			return
		}
		select {
		case <-any.done:
		case <-ctx.Done():
			return
		}
	}
}

// Promise is called before others are told that the running job of this ID will
// bring its work to an end, whatever it takes. False: it ended, or is ending
// without a result, and there is nothing to promise.
func (s *Set[R]) Promise(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.running[id]
	if j == nil || j.gaveUp {
		return false
	}
	j.promised = true
	return true
}

// GiveUp is a running job's own question whether it may end without a result:
// true where nobody was promised one, and nobody will be.
func (s *Set[R]) GiveUp(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.running[id]
	if j == nil {
		return true
	}
	j.gaveUp = !j.promised
	return j.gaveUp
}

// Find says what the running job of this ID is about; false: none runs.
func (s *Set[R]) Find(id string) (about string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j, ok := s.running[id]; ok {
		return j.task.About, true
	}
	return "", false
}

// Describe replaces what the running job of this ID says of itself.
func (s *Set[R]) Describe(id string, t Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.running[id]; j != nil {
		j.task = t
	}
}

// Longer returns what those jobs are about, but for "", that have run for
// longer than d.
func (s *Set[R]) Longer(d time.Duration) (about []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.running {
		if j.task.About != "" && time.Since(j.begun) > d {
			about = append(about, j.task.About)
		}
	}
	return about
}

// Count is how many jobs run.
func (s *Set[R]) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running)
}

// RetryAfter is how long a client should wait before it asks for the job
// again: the time to its end as it looks now. False: it doesn't run here.
func (s *Set[R]) RetryAfter(id string) (time.Duration, bool) {
	s.mu.Lock()
	j := s.running[id]
	var left func() time.Duration
	if j != nil {
		left = j.task.Left
	}
	s.mu.Unlock()
	if left == nil {
		return time.Second, j != nil
	}
	return Retry(left()), true
}

// longestRetry is for a queue that shortens meanwhile, as when a key is added.
const longestRetry = 10 * time.Minute

// Retry is an estimate of the time left as a client is told it: whole seconds,
// from one to ten minutes.
func Retry(left time.Duration) time.Duration {
	return min(max(left.Round(time.Second), time.Second), longestRetry)
}
