package drumline

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// link is a TCP proxy in front of the server, which a test can cut.
type link struct {
	listener net.Listener
	fromNode atomic.Int64
	lock     sync.Mutex
	isDown   bool
	sockets  []net.Conn
}

func newLink(t *testing.T) *link {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	l := &link{listener: listener}
	t.Cleanup(func() {
		_ = listener.Close()
		l.cut()
	})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			l.join(client)
		}
	}()
	return l
}

func (l *link) join(client net.Conn) {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.isDown {
		_ = client.Close()
		return
	}
	server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", node.port))
	if err != nil {
		_ = client.Close()
		return
	}
	l.sockets = append(l.sockets, client, server)
	go pump(server, client, nil)
	go pump(client, server, &l.fromNode)
}

// pump copies one direction, and ends both sockets with it.
func pump(to, from net.Conn, count *atomic.Int64) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if count != nil {
			count.Add(int64(n))
		}
		if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
}

// cut closes every connection, and each new one until mend.
func (l *link) cut() {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.isDown = true
	for _, socket := range l.sockets {
		_ = socket.Close()
	}
	l.sockets = nil
}

func (l *link) mend() {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.isDown = false
}

func (l *link) port() int { return l.listener.Addr().(*net.TCPAddr).Port }
