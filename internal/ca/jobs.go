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
	begun time.Time
}

func newJobs(most int) *jobs {
	return &jobs{slots: make(chan struct{}, most), running: make(map[string]*job)}
}

// start runs work in the background unless a job of this ID runs already. It
// answers false when as many run as may: the caller leaves the work to the
// database and the sweep. The context of the work outlives the caller's.
func (js *jobs) start(ctx context.Context, id string, work func(context.Context)) (*job, bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if j, ok := js.running[id]; ok {
		return j, true
	}
	select {
	case js.slots <- struct{}{}:
	default:
		return nil, false
	}
	j := &job{done: make(chan struct{}), begun: time.Now()}
	js.running[id] = j
	go func() {
		defer func() {
			js.mu.Lock()
			delete(js.running, id)
			js.mu.Unlock()
			<-js.slots
			close(j.done)
		}()
		work(context.WithoutCancel(ctx))
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

// has reports whether a job of this ID runs.
func (js *jobs) has(id string) bool {
	js.mu.Lock()
	defer js.mu.Unlock()
	_, ok := js.running[id]
	return ok
}

// count is how many jobs run.
func (js *jobs) count() int {
	js.mu.Lock()
	defer js.mu.Unlock()
	return len(js.running)
}

// retryAfter is how long a client should wait before it asks for the job
// again: a second, until keys have queues whose length is known.
func (js *jobs) retryAfter(string) time.Duration { return time.Second }
