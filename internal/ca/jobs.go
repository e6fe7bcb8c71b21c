package ca

import (
	"context"
	"sync"
	"time"
)

// jobs are the things running in this process, by ID: whoever asks for one
// that runs already waits for that one. A job owns its work; the requests
// that wait for it come and go.
type jobs struct {
	slots chan struct{} // bounds how many run

	mu      sync.Mutex
	running map[string]*job
}

type job struct {
	done  chan struct{} // closed at the end
	err   error         // what came of it; read after done only
	made  any           // likewise: the state it recorded, nil where that must be read
	begun time.Time
	task  // what it does; guarded by jobs.mu
}

// task describes a job to those who ask about it.
type task struct {
	about string               // the challenge's type, or the planned certificate's serial, "" for another replica's
	left  func() time.Duration // an estimate of the time to its end; nil: soon
}

func newJobs(most int) *jobs {
	return &jobs{slots: make(chan struct{}, most), running: make(map[string]*job)}
}

// start runs work in the background unless a job of this ID runs already: then
// it returns that one, and mine is false. It returns nil when as many run as
// may: the caller leaves the work to the database and the sweep. The context
// of the work outlives the caller's.
func (js *jobs) start(ctx context.Context, id string, t task, work func(context.Context) (any, error)) (j *job, mine bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if j, ok := js.running[id]; ok {
		return j, false
	}
	select {
	case js.slots <- struct{}{}:
	default:
		return nil, false
	}
	j = &job{done: make(chan struct{}), begun: time.Now(), task: t}
	js.running[id] = j
	go func() {
		defer func() {
			js.mu.Lock()
			delete(js.running, id)
			js.mu.Unlock()
			<-js.slots
			close(j.done)
		}()
		j.made, j.err = work(context.WithoutCancel(ctx))
	}()
	return j, true
}

// wait waits for the job's end, at most for the time given or until the
// caller hangs up, and says whether it ended.
func (j *job) wait(ctx context.Context, most time.Duration) bool {
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

// idle waits until nothing runs or ctx ends, for a graceful stop.
func (js *jobs) idle(ctx context.Context) {
	for {
		js.mu.Lock()
		var any *job
		for _, any = range js.running {
			break
		}
		js.mu.Unlock()
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

// find returns the running job of this ID, nil if there is none, and what it
// is about.
func (js *jobs) find(id string) (j *job, about string) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if j = js.running[id]; j != nil {
		about = j.about
	}
	return j, about
}

// change changes what the running job of this ID is about.
func (js *jobs) change(id string, t task) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if j := js.running[id]; j != nil {
		j.task = t
	}
}

// longer returns what those jobs are about that have run for longer than d.
func (js *jobs) longer(d time.Duration) (about []string) {
	js.mu.Lock()
	defer js.mu.Unlock()
	for _, j := range js.running {
		if j.about != "" && time.Since(j.begun) > d {
			about = append(about, j.about)
		}
	}
	return about
}

// count is how many jobs run.
func (js *jobs) count() int {
	js.mu.Lock()
	defer js.mu.Unlock()
	return len(js.running)
}

// retryAfter is how long a client should wait before it asks for the job
// again: the time to its end as it looks now. The bound is for a queue that
// shortens meanwhile, as when a key is added.
// False: it doesn't run here.
func (js *jobs) retryAfter(id string) (time.Duration, bool) {
	js.mu.Lock()
	j := js.running[id]
	var left func() time.Duration
	if j != nil {
		left = j.left
	}
	js.mu.Unlock()
	if left == nil {
		return time.Second, j != nil
	}
	return retry(left()), true
}

const longestRetry = 10 * time.Minute

// retry is an estimate as a client is told it.
func retry(left time.Duration) time.Duration {
	return min(max(left.Round(time.Second), time.Second), longestRetry)
}
