// A front before an S3 server that makes it look like one that is far away: every answer comes later by a delay,
// every connection is capped in both directions, and all that passes is counted.
//
//	front LISTEN SERVER, as host:port each
//
// It has a page of its own, /-front: GET gives the counts as JSON, DELETE sets them to zero, POST with
// {"delay_ms": 30, "bytes_per_second": 90000000} changes what is done from now on (0: nothing; both may be left out).
//
// It must cost next to nothing beside what it measures, so it reads heads only: bodies go from socket to socket by
// splice(2), which is what io.CopyN comes to between two TCP connections. Each client's connection has one to the
// server for itself. Bodies have a Content-Length or are chunked by lines (what S3 servers and clients send).
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	page     = "/-front"
	piece    = 512 << 10 // between two looks at the clock, 6 ms at 90 MB/s: each wakes Go's whole machinery
	headRoom = 64 << 10
	burst    = 5 * time.Millisecond // what a body that fell behind may catch up
)

// Counts is what has passed since the last reset.
type Counts struct {
	Gets     int64 `json:"gets"`  // of objects
	Whole    int64 `json:"whole"` // those of them without a range: documents
	Lists    int64 `json:"lists"` // GETs of a bucket
	Heads    int64 `json:"heads"`
	Puts     int64 `json:"puts"`
	Others   int64 `json:"others"`
	Failed   int64 `json:"failed"`   // answers of 500 and above, and connections that broke
	Asked    int64 `json:"asked"`    // bytes that ranges of GETs asked for
	Sent     int64 `json:"sent"`     // bytes of bodies to clients
	Received int64 `json:"received"` // bytes of bodies from clients
	AtOnce   int64 `json:"at_once"`  // most requests under way at one time
}

type settings struct {
	DelayMs        *float64 `json:"delay_ms"`
	BytesPerSecond *float64 `json:"bytes_per_second"`
}

type front struct {
	server string

	mu       sync.Mutex
	counts   Counts
	underWay int64
	delay    time.Duration
	perByte  float64 // nanoseconds
}

func (f *front) count(change func(*Counts)) {
	f.mu.Lock()
	change(&f.counts)
	f.mu.Unlock()
}

func (f *front) begin(request *head) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.underWay++
	f.counts.AtOnce = max(f.counts.AtOnce, f.underWay)
	switch {
	case request.method == "GET" && strings.Contains(request.target, "list-type="):
		f.counts.Lists++
	case request.method == "GET":
		f.counts.Gets++
		if request.rangeOf == "" {
			f.counts.Whole++
		}
		f.counts.Asked += request.ranged()
	case request.method == "HEAD":
		f.counts.Heads++
	case request.method == "PUT" || request.method == "POST":
		f.counts.Puts++
	default:
		f.counts.Others++
	}
	return f.delay
}

func (f *front) end() {
	f.mu.Lock()
	f.underWay--
	f.mu.Unlock()
}

// A head is a request's or an answer's first line and headers, as they came.
type head struct {
	raw            []byte
	method, target string // of a request
	status         int    // of an answer
	length         int64  // -1: not said
	chunked        bool
	expects        bool
	closes         bool
	rangeOf        string
}

func readHead(from *bufio.Reader) (*head, error) {
	h := &head{length: -1}
	for number := 0; ; number++ {
		line, err := from.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		h.raw = append(h.raw, line...)
		if len(h.raw) > headRoom {
			return nil, errors.New("a head without end")
		}
		line = bytes.TrimRight(line, "\r\n")
		if number == 0 {
			if err := h.first(string(line)); err != nil {
				return nil, err
			}
			continue
		}
		if len(line) == 0 {
			return h, nil
		}
		if err := h.header(line); err != nil {
			return nil, err
		}
	}
}

func (h *head) first(line string) error {
	words := strings.SplitN(line, " ", 3)
	if len(words) < 2 {
		return fmt.Errorf("no HTTP: %.40q", line)
	}
	if strings.HasPrefix(words[0], "HTTP/") {
		status, err := strconv.Atoi(words[1])
		h.status = status
		return err
	}
	h.method, h.target = words[0], words[1]
	return nil
}

func (h *head) header(line []byte) error {
	name, value, _ := bytes.Cut(line, []byte(":"))
	text := string(bytes.TrimSpace(value))
	switch strings.ToLower(string(name)) {
	case "content-length":
		length, err := strconv.ParseInt(text, 10, 64)
		h.length = length
		return err
	case "transfer-encoding":
		h.chunked = strings.EqualFold(text, "chunked")
	case "expect":
		h.expects = strings.EqualFold(text, "100-continue")
	case "connection":
		h.closes = strings.EqualFold(text, "close")
	case "range":
		h.rangeOf = text
	}
	return nil
}

// ranged is how many bytes "Range: bytes=a-b" asks for; 0 when it is open or absent.
func (h *head) ranged() int64 {
	var first, last int64
	if n, _ := fmt.Sscanf(h.rangeOf, "bytes=%d-%d", &first, &last); n == 2 && last >= first {
		return last - first + 1
	}
	return 0
}

// A side is one connection with what was read of it too early.
type side struct {
	conn   *net.TCPConn
	reader *bufio.Reader
}

func newSide(conn net.Conn) side {
	tcp := conn.(*net.TCPConn)
	return side{tcp, bufio.NewReaderSize(tcp, headRoom)}
}

// A pace keeps one direction of a connection at its rate.
type pace struct {
	f    *front
	next time.Time
}

func (p *pace) begin() {
	if now := time.Now(); p.next.Before(now) {
		p.next = now
	}
}

// wait returns when the last of the next bytes may be there; then all of them may go.
func (p *pace) wait(size int64) {
	p.f.mu.Lock()
	perByte := p.f.perByte
	p.f.mu.Unlock()
	p.next = p.next.Add(time.Duration(float64(size) * perByte))
	time.Sleep(time.Until(p.next))
	if late := time.Now().Add(-burst); p.next.Before(late) {
		p.next = late
	}
}

// pass hands on `size` bytes: first what is in the reader already, then from socket to socket.
func (p *pace) pass(to *net.TCPConn, from side, size int64, passed func(int64)) error {
	p.begin()
	for size > 0 {
		take := min(size, piece)
		var source io.Reader = from.conn
		if held := int64(from.reader.Buffered()); held > 0 {
			take, source = min(take, held), from.reader
		}
		p.wait(take)
		if _, err := io.CopyN(to, source, take); err != nil {
			return err
		}
		passed(take)
		size -= take
	}
	return nil
}

func (p *pace) passChunked(to *net.TCPConn, from side, passed func(int64)) error {
	for {
		line, err := from.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		if _, err := to.Write(line); err != nil {
			return err
		}
		words, _, _ := strings.Cut(strings.TrimSpace(string(line)), ";")
		size, err := strconv.ParseInt(words, 16, 64)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		if err := p.pass(to, from, size+2, passed); err != nil {
			return err
		}
	}
	for { // trailers
		line, err := from.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		if _, err := to.Write(line); err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
	}
}

func (p *pace) passBody(to *net.TCPConn, from side, h *head, passed func(int64)) error {
	if h.chunked {
		return p.passChunked(to, from, passed)
	}
	return p.pass(to, from, h.length, passed)
}

// serve handles one client's connection until either end closes it.
func (f *front) serve(conn net.Conn) {
	defer conn.Close()
	client := newSide(conn)
	var server side
	up, down := &pace{f: f}, &pace{f: f}
	for {
		request, err := readHead(client.reader)
		if err != nil {
			if err != io.EOF {
				f.broke(request, err)
			}
			return
		}
		if strings.HasPrefix(request.target, page) {
			if f.steer(client, request) != nil {
				return
			}
			continue
		}
		if server.conn == nil {
			dialled, err := net.Dial("tcp", f.server)
			if err != nil {
				f.broke(request, err)
				return
			}
			defer dialled.Close()
			server = newSide(dialled)
		}
		delay := f.begin(request)
		again, err := f.exchange(client, server, request, delay, up, down)
		f.end()
		if err != nil {
			f.broke(request, err)
			return
		}
		if !again {
			return
		}
	}
}

func (f *front) broke(request *head, err error) {
	f.count(func(c *Counts) { c.Failed++ })
	if request != nil {
		log.Printf("%s %s: %v", request.method, request.target, err)
	} else if !errors.Is(err, net.ErrClosed) {
		log.Print(err)
	}
}

// exchange passes one request and its answer; it tells whether another may follow on this connection.
func (f *front) exchange(client, server side, request *head, delay time.Duration, up, down *pace) (bool, error) {
	if _, err := server.conn.Write(request.raw); err != nil {
		return false, err
	}
	received := func(size int64) { f.count(func(c *Counts) { c.Received += size }) }
	if request.expects {
		answer, err := readHead(server.reader)
		if err != nil {
			return false, err
		}
		if answer.status != 100 {
			return false, f.answer(client, server, request, answer, down)
		}
		if _, err := client.conn.Write(answer.raw); err != nil {
			return false, err
		}
	}
	if err := up.passBody(server.conn, client, request, received); err != nil {
		return false, err
	}
	time.Sleep(delay)
	answer, err := readHead(server.reader)
	for err == nil && answer.status/100 == 1 {
		answer, err = readHead(server.reader)
	}
	if err != nil {
		return false, err
	}
	return !request.closes && !answer.closes, f.answer(client, server, request, answer, down)
}

func (f *front) answer(client, server side, request, answer *head, down *pace) error {
	sent := func(size int64) { f.count(func(c *Counts) { c.Sent += size }) }
	if answer.status >= 500 {
		f.count(func(c *Counts) { c.Failed++ })
	}
	if _, err := client.conn.Write(answer.raw); err != nil {
		return err
	}
	if request.method == "HEAD" || answer.status == 204 || answer.status == 304 {
		return nil
	}
	if answer.length < 0 && !answer.chunked {
		return errors.New("an answer that ends with its connection")
	}
	return down.passBody(client.conn, server, answer, sent)
}

// steer answers a request for the front's own page.
func (f *front) steer(client side, request *head) error {
	body := make([]byte, max(0, request.length))
	if _, err := io.ReadFull(client.reader, body); err != nil {
		return err
	}
	status := "200 OK"
	f.mu.Lock()
	switch request.method {
	case "POST":
		var wanted settings
		if err := json.Unmarshal(body, &wanted); err != nil {
			status = "400 Bad Request"
		}
		if wanted.DelayMs != nil {
			f.delay = time.Duration(*wanted.DelayMs * float64(time.Millisecond))
		}
		if wanted.BytesPerSecond != nil {
			f.perByte = 0
			if *wanted.BytesPerSecond > 0 {
				f.perByte = 1e9 / *wanted.BytesPerSecond
			}
		}
	case "DELETE":
		f.counts = Counts{AtOnce: f.underWay}
	}
	text, _ := json.Marshal(f.counts)
	f.mu.Unlock()
	_, err := fmt.Fprintf(client.conn, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(text), text)
	return err
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	f := &front{server: os.Args[2]}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go f.serve(conn)
	}
}
