package coord

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// The test program plays other processes, too: with this variable, it holds a lock instead of running tests.
const roleVariable = "COORD_TEST_HOLD"

func TestMain(m *testing.M) {
	if url := os.Getenv(roleVariable); url != "" {
		if err := holdUntilLost(url); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// holdUntilLost says "held", and when the hold is lost why.
func holdUntilLost(url string) error {
	client, err := Connect(context.Background(), url)
	if err != nil {
		return err
	}
	l, err := client.Lock("a")
	if err != nil {
		return err
	}
	return l.Do(context.Background(), func(ctx context.Context, _ *Held) error {
		fmt.Println("held")
		<-ctx.Done()
		fmt.Println("lost", context.Cause(ctx).(*Error).Loss)
		return nil
	})
}

type process struct {
	*exec.Cmd
	lines chan string
}

func holder(t *testing.T, url string) process {
	t.Helper()
	p := process{exec.Command(os.Args[0]), make(chan string, 16)}
	p.Env = append(os.Environ(), roleVariable+"="+url)
	p.Stderr = os.Stderr
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	if line := comes(t, "the holder's first line", p.lines); line != "held" {
		t.Fatalf("the holder said %q", line)
	}
	return p
}

func TestAKilledHolderFreesItsLock(t *testing.T) {
	url := sqlite(t)
	// A ttl beyond every bound: only the proof of the death can free the lock in time.
	p := holder(t, url+"?coord.ttl=300s")
	client := connect(t, url)
	granted := make(chan *Held, 1)
	go func() {
		if held, err := lock(t, client, "a").Acquire(context.Background()); err == nil {
			granted <- held
		}
	}()
	waiting(t, client, "a", 1)
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	release(t, comes(t, "the grant after the kill", granted))
}

func TestAStoppedHolderLearnsOfItsLoss(t *testing.T) {
	url := sqlite(t)
	p := holder(t, url+"?coord.ttl=5s")
	if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	held := acquire(t, lock(t, connect(t, url), "a"))
	if err := p.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if line := comes(t, "the holder's loss", p.lines); !strings.HasPrefix(line, "lost ") || line == "lost None" {
		t.Errorf("the holder said %q", line)
	}
	if err := held.Check(); err != nil {
		t.Error(err)
	}
	release(t, held)
}

// A server that resets each connection in the middle of a request: the write after that raises SIGPIPE in a thread of
// the library, if that lets it.
func TestABrokenConnectionDoesNotKillTheProcess(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	accepted := make(chan struct{}, 1024)
	go func() {
		for {
			connection, err := server.Accept()
			if err != nil {
				return
			}
			_ = connection.(*net.TCPConn).SetLinger(0)
			_, _ = connection.Read(make([]byte, 4))
			_ = connection.Close()
			select {
			case accepted <- struct{}{}:
			default:
			}
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := Connect(ctx, fmt.Sprintf("mongodb://%s/t", server.Addr()))
		ended <- err
	}()
	comes(t, "a connection", accepted)
	comes(t, "another connection", accepted)
	cancel()
	if err := comes(t, "the end of connecting", ended); err == nil {
		t.Error("there is nobody to connect to")
	}
}

func TestSignalsStayTheHosts(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGPIPE)
	defer signal.Stop(signals)
	client := connect(t, sqlite(t))
	held := acquire(t, lock(t, client, "a"))
	for _, sent := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGPIPE} {
		if err := syscall.Kill(os.Getpid(), sent); err != nil {
			t.Fatal(err)
		}
		if got := comes(t, "the signal", signals); got != sent {
			t.Errorf("sent %v, got %v", sent, got)
		}
	}
	if err := held.Check(); err != nil {
		t.Error(err)
	}
	release(t, held)
}

// Waiting costs no thread. The waits begin one after another: calls at one time may each need a thread while they last.
func TestWaitersCostNoThreads(t *testing.T) {
	client := connect(t, memory(t), WithOption("max_queue", "1000"))
	held := acquire(t, lock(t, client, "a"))
	threads := func() int {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := threads()
	const count = 200
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, count)
	for i := range int64(count) {
		go func() {
			_, err := lock(t, client, "a").Acquire(ctx)
			ended <- err
		}()
		becomes(t, "one more waits", func() bool {
			stats, err := client.Stats()
			return err == nil && stats.Waiting == i+1
		})
	}
	if now := threads(); now > before+count/4 {
		t.Errorf("%d threads before, %d now", before, now)
	}
	cancel()
	for range count {
		wants(t, comes(t, "the end of a wait", ended), ErrCancelled)
	}
	release(t, held)
}
