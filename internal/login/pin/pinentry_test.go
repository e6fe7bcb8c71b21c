package pin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program writes a pinentry: a shell script that is given each command in $line,
// after it has greeted.
func program(t *testing.T, body string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pinentry")
	script := "#!/bin/sh\necho 'OK Pleased to meet you'\nwhile read -r line; do\n" + body + "\ndone\n"
	if err := os.WriteFile(name, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

// The PIN comes with its escapes undone, the prompt arrives on one line, and a
// program that knows nothing but GETPIN will do.
func TestPinentry(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	t.Setenv("LOG", log)
	t.Setenv("GPG_TTY", "/dev/pts/7")
	p := program(t, `printf '%s\n' "$line" >>"$LOG"
case $line in
GETPIN) echo '# a comment'; echo 'S PASSWORD_FROM_CACHE'; echo 'D 12%253'; echo 'D 4%0A'; echo OK;;
OPTION*) echo 'ERR 83886254 Unknown option <Pinentry>';;
BYE) echo OK; exit;;
*) echo OK;;
esac`)
	got, err := Pinentry(t.Context(), p, "PIN of 100%\nYubiKey")
	if err != nil || string(got) != "12%34\n" {
		t.Errorf("%q, %v", got, err)
	}
	said, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if want := "OPTION ttyname=/dev/pts/7\nSETTITLE Chancery\nSETDESC PIN of 100%25%0AYubiKey\nSETPROMPT PIN:\nGETPIN\n"; !strings.HasPrefix(string(said), want) {
		t.Errorf("it was told %q", said)
	}
	// Ask goes by the environment.
	t.Setenv("PINENTRY", p)
	if got, err := Ask(t.Context(), "PIN"); err != nil || string(got) != "12%34\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// Each way to answer wrongly is an error that shows no PIN.
func TestPinentryRefuses(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"cancelled": {`case $line in GETPIN) echo 'ERR 83886179 Operation cancelled <Pinentry>';; *) echo OK;; esac`, "no PIN was given"},
		"empty":     {`echo OK`, "no PIN was given"},
		"an error":  {`case $line in GETPIN) echo 'ERR 83886340 No "display"';; *) echo OK;; esac`, `it says "No \"display\""`},
		"no number": {`case $line in GETPIN) echo 'ERR x';; *) echo OK;; esac`, "no number"},
		"too much":  {`case $line in GETPIN) echo "D $(printf %0200d 0)";; esac; echo OK`, "more than a PIN"},
		"too long":  {`case $line in GETPIN) printf 'D %02000d\n' 0;; esac; echo OK`, "no whole line"},
		"no end":    {`case $line in GETPIN) for i in $(seq 300); do echo '# still thinking'; done;; esac; echo OK`, "talks without end"},
		"escape":    {`case $line in GETPIN) echo 'D 1234%4';; esac; echo OK`, "half an escape"},
		"escape 2":  {`case $line in GETPIN) echo 'D 1234%zz';; esac; echo OK`, "bad escape"},
		"inquiry":   {`case $line in GETPIN) echo 'INQUIRE QUALITY 1234';; esac; echo OK`, "isn't pinentry's protocol"},
		"it dies":   {`exit 1`, "pinentry"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Pinentry(t.Context(), program(t, c.body), "PIN")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "1234") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := Pinentry(t.Context(), filepath.Join(t.TempDir(), "none"), "PIN"); err == nil {
		t.Error("a program that isn't there")
	}
}

// Whoever gives up needn't wait for the person.
func TestPinentryEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Pinentry(ctx, program(t, `case $line in GETPIN) exec sleep 60;; *) echo OK;; esac`), "PIN"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A program that can't ask isn't the last word; a person who says no is.
func TestPinentryCannotAsk(t *testing.T) {
	_, err := orNobody(t.Context(), program(t, `case $line in GETPIN) echo "ERR 83918950 Inappropriate ioctl for device <Pinentry>";; *) echo OK;; esac`), "PIN")
	if !errors.Is(err, errNone) || !strings.Contains(err.Error(), "Inappropriate") {
		t.Error(err)
	}
	_, err = orNobody(t.Context(), program(t, `case $line in GETPIN) echo "ERR 83886179 Operation cancelled";; *) echo OK;; esac`), "PIN")
	if errors.Is(err, errNone) || !errors.Is(err, errRefused) {
		t.Error(err)
	}
}

func TestRead(t *testing.T) {
	for in, want := range map[string]string{"123456\n": "123456", "123456\r\nmore\n": "123456", "123456": "123456", "": "", "\n": "", strings.Repeat("1", 200) + "\n": ""} {
		got, err := Read(strings.NewReader(in))
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%.20q is read as %q, %v", in, got, err)
		}
	}
}

// Whatever a program says, it is bounded, and an answer is what its D lines say.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("D 1234\nOK\n"))
	f.Add([]byte("# x\nS y\nD 12%25\nD 4\nOK bye\n"))
	f.Add([]byte("ERR 83886179 Operation cancelled\n"))
	f.Add([]byte("ERR 1 %\nOK"))
	f.Add([]byte("\nD\nOK\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c := conversation{io.Discard, bufio.NewReaderSize(bytes.NewReader(said), maxLine+2)}
		data, err := c.answer()
		if len(data) > maxPIN || err != nil && data != nil {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
		if err == nil && !bytes.Contains(said, []byte("OK")) {
			t.Fatal("done without OK")
		}
		if back, err := unescape([]byte(escape(string(said)))); err != nil || !bytes.Equal(back, said) {
			t.Fatalf("%q comes back as %q, %v", said, back, err)
		}
	})
}
