// Command wsclient talks WebSocket through the proxy under test to the echo of command upstream.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const patience = 10 * time.Second

func dial(url string) (*websocket.Conn, error) {
	dialer := websocket.Dialer{HandshakeTimeout: patience, Subprotocols: []string{"echo"}}
	c, response, err := dialer.Dial(url, http.Header{"X-Case": {"ws"}})
	if err != nil {
		if response != nil {
			return nil, fmt.Errorf("handshake answered %s: %w", response.Status, err)
		}
		return nil, err
	}
	if got := c.Subprotocol(); got != "echo" {
		return nil, fmt.Errorf("subprotocol %q, want echo", got)
	}
	return c, c.SetReadDeadline(time.Now().Add(patience))
}

func same(c *websocket.Conn, kind int, message []byte) error {
	if err := c.WriteMessage(kind, message); err != nil {
		return err
	}
	gotKind, got, err := c.ReadMessage()
	if err != nil {
		return err
	}
	if gotKind != kind || !bytes.Equal(got, message) {
		return fmt.Errorf("echo of %d bytes came back as %d bytes of kind %d", len(message), len(got), gotKind)
	}
	return nil
}

func messages(url string) error {
	c, err := dial(url)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		if err := same(c, websocket.TextMessage, bytes.Repeat([]byte("t"), n)); err != nil {
			return err
		}
		if err := same(c, websocket.BinaryMessage, bytes.Repeat([]byte{0xff}, n)); err != nil {
			return err
		}
	}
	return nil
}

func ping(url string) error {
	c, err := dial(url)
	if err != nil {
		return err
	}
	defer c.Close()
	pong := ""
	c.SetPongHandler(func(data string) error { pong = data; return nil })
	if err := c.WriteControl(websocket.PingMessage, []byte("p1"), time.Now().Add(patience)); err != nil {
		return err
	}
	// the pong is handled while the next message is awaited
	if err := same(c, websocket.TextMessage, []byte("after ping")); err != nil {
		return err
	}
	if pong != "p1" {
		return fmt.Errorf("pong %q, want p1", pong)
	}
	return nil
}

func closing(url string) error {
	c, err := dial(url)
	if err != nil {
		return err
	}
	defer c.Close()
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "bye")
	if err := c.WriteControl(websocket.CloseMessage, bye, time.Now().Add(patience)); err != nil {
		return err
	}
	_, _, err = c.ReadMessage()
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.CloseNormalClosure {
		return fmt.Errorf("close came back as %v", err)
	}
	return nil
}

func together(url string) error {
	var group sync.WaitGroup
	failed := make(chan error, 32)
	for range 32 {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := messages(url); err != nil {
				failed <- err
			}
		}()
	}
	group.Wait()
	close(failed)
	return <-failed
}

func main() {
	url := flag.String("url", "", "ws://host:port/ws through the proxy")
	flag.Parse()
	cases := []struct {
		name string
		run  func(string) error
	}{{"messages", messages}, {"ping", ping}, {"close", closing}, {"32 at once", together}}
	failures := 0
	for _, c := range cases {
		if err := c.run(*url); err != nil {
			failures++
			fmt.Printf("%s: FAILED: %v\n", c.name, err)
			continue
		}
		fmt.Printf("%s: passed\n", c.name)
	}
	if failures > 0 {
		os.Exit(1)
	}
}
