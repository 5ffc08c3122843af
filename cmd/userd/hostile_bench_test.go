package main_test

import (
	"context"
	"math/rand/v2"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// BenchmarkLimits measures GetUser with all limits on and off.
func BenchmarkLimits(b *testing.B) {
	for _, c := range []struct {
		name  string
		flags []string
	}{
		{"off", []string{
			"--max-connections", "0", "--max-streams-per-caller", "0", "--max-stream-bytes", "0",
			"--max-control-frames", "0", "--keepalive-min-time", "0s", "--memory-limit", "off",
		}},
		{"on", []string{"--max-connections-per-peer", "1000", "--max-requests-per-second", "1000000", "--memory-limit", "4GiB"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := program{dir: b.TempDir(), flags: c.flags}.start(b)
			client := p.client(b, 1<<20)
			importUsers(b, client, 1000)
			ids := userIDs(b, client)
			spread(b, p, 64, func(ctx context.Context, client userv1connect.UserServiceClient, _ int) error {
				_, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: ids[rand.IntN(len(ids))]})
				return err
			})
		})
	}
}
