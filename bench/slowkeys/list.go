package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// listRun is a site with very many revoked certificates.
type listRun struct {
	*site
	o       *options
	entries int
	url     string // of the full list
	serials []string
}

// takers fetch the list at the same time.
const takers = 10

// listScenario: a list of a million, made, served to several at once, and made
// anew after a revocation.
func listScenario(ctx context.Context, l *lab, o *options) (r result, err error) {
	s := &listRun{o: o, entries: 1_000_000}
	if o.quick {
		s.entries = 100_000
	}
	r.Title = fmt.Sprintf("A CRL of %d entries", s.entries)
	if s.site, err = l.newSite(ctx, "list", issuer{"slow", 1, "crl"}); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	id, err := s.keyID(s.issuers[0].label(0))
	if err != nil {
		return r, err
	}
	s.url = "http://" + s.publish + "/crl/" + id + ".crl"
	begun := time.Now()
	// One is alive, to be revoked later.
	live, err := output(ctx, s.dir, nil, s.program("inside"), "live", s.database(), id, ocspURL, "1")
	if err != nil {
		return r, err
	}
	s.serials = strings.Fields(string(live))
	if _, err := output(ctx, s.dir, nil, s.program("inside"), "revoked", s.database(), id, strconv.Itoa(s.entries)); err != nil {
		return r, err
	}
	o.say("%d revoked certificates stored in %.0f s", s.entries, time.Since(begun).Seconds())
	return r, errors.Join(s.delay("", 200*time.Millisecond), s.run(ctx, &r))
}

func (s *listRun) run(ctx context.Context, r *result) error {
	begun := time.Now()
	if err := s.serve(ctx); err != nil {
		return err
	}
	pid, ready := s.server.pid(), time.Since(begun)
	idle := memory(pid, "VmRSS")
	first, err := s.newer(ctx, "")
	if err != nil {
		return err
	}
	build, size := memory(pid, "VmHWM"), first.size
	r.fact("the list", "%.1f MB", mb(size))
	r.fact("from the server's start until it takes orders, and from then until the list is served", "%.1f s, %.1f s", ready.Seconds(), (time.Since(begun) - ready).Seconds())
	r.fact("server's CPU time for both", "%.1f s", cpuTime(pid).Seconds())
	r.fact("memory when it takes orders, and peak while the list is made", "%.0f MB, %.0f MB", mb(idle), mb(build))
	r.fact("memory that this takes, by the list's size", "%.1f ×", float64(build-idle)/float64(size))
	sleep(ctx, 2*time.Second)
	if err := resetPeak(pid); err != nil {
		return err
	}
	before := memory(pid, "VmRSS")
	took, err := s.takeAll(ctx, first)
	if err != nil {
		return err
	}
	peak := memory(pid, "VmHWM")
	r.fact(fmt.Sprintf("%d clients fetch it at once, in", takers), "%.2f s, %.0f MB/s", took.Seconds(), mb(takers*size)/took.Seconds())
	r.fact("memory before and peak meanwhile", "%.0f MB, %.0f MB", mb(before), mb(peak))
	r.atMost("memory that serving it takes, by the list's size", "%.2f ×", .25, max(float64(peak-before), 0)/float64(size))
	return s.again(ctx, r, first)
}

func mb(bytes int64) float64 { return float64(bytes) / 1e6 }

// again revokes one more.
func (s *listRun) again(ctx context.Context, r *result, first version) error {
	pid := s.server.pid()
	if err := resetPeak(pid); err != nil {
		return err
	}
	begun := time.Now()
	_, err := output(ctx, s.dir, nil, s.program("chancery"), "admin", "--socket", filepath.Join(s.dir, "admin.sock"), "certs", "revoke", s.serials[0])
	if err != nil {
		return err
	}
	second, err := s.newer(ctx, first.etag)
	if err != nil {
		return err
	}
	took, peak := time.Since(begun), memory(pid, "VmHWM")
	if second.size <= first.size {
		return fmt.Errorf("the new list has %d bytes, the old one %d", second.size, first.size)
	}
	r.fact("from one more revocation until the new list is served, of which it was in the making", "%.1f s, %.1f s",
		took.Seconds(), time.Since(second.begun()).Seconds())
	r.fact("peak memory meanwhile, the old list being served", "%.0f MB", mb(peak))
	return nil
}

// version is a list as HTTP tells of it.
type version struct {
	etag string
	size int64
}

// begun is when the list was begun: its number, which is its tag, is the time
// in milliseconds unless that is taken.
func (v version) begun() time.Time {
	number, _ := strconv.ParseInt(strings.Trim(v.etag, `"`), 10, 64)
	return time.UnixMilli(number)
}

// newer waits for a list other than that.
func (s *listRun) newer(ctx context.Context, etag string) (v version, err error) {
	for end := time.Now().Add(2 * time.Minute); ; sleep(ctx, 50*time.Millisecond) {
		resp, err := http.Head(s.url)
		if err != nil {
			return v, err
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK && resp.Header.Get("ETag") != etag {
			return version{resp.Header.Get("ETag"), resp.ContentLength}, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return v, fmt.Errorf("no new list in 2 minutes: %s", resp.Status)
		}
	}
}

// takeAll has several clients fetch the list.
func (s *listRun) takeAll(ctx context.Context, v version) (took time.Duration, err error) {
	begun := time.Now()
	var all sync.WaitGroup
	faults, sums := make([]error, takers), make([]string, takers)
	for i := range takers {
		all.Go(func() { sums[i], faults[i] = s.take(ctx, v) })
	}
	all.Wait()
	for _, sum := range sums {
		if sum != sums[0] && err == nil {
			err = errors.New("not all got the same list")
		}
	}
	return time.Since(begun), errors.Join(append(faults, err)...)
}

func (s *listRun) take(ctx context.Context, v version) (sum string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n != v.size || resp.Header.Get("ETag") != v.etag) {
		err = fmt.Errorf("%s: %d bytes of %d", resp.Status, n, v.size)
	}
	return string(hash.Sum(nil)), err
}
