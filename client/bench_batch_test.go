package client_test

import (
	"fmt"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
)

// BenchmarkImport imports users with BatchCreateUsers: durable items a second.
func BenchmarkImport(b *testing.B) {
	c := newClient(b, servertest.Start(b))
	items := numbered(b.N, func(i int) *userv1.BatchCreateUsersRequest {
		return &userv1.BatchCreateUsersRequest{User: &userv1.CreateUserRequest{
			Username: fmt.Sprint("imported ", i), Email: fmt.Sprintf("imported%d@example.org", i), Tags: []string{"imported"},
		}}
	})
	b.ResetTimer()
	summary, err := c.BatchCreateUsers(b.Context(), items, nil)
	if err != nil || summary.Created != int64(b.N) {
		b.Fatalf("BatchCreateUsers() = %+v, %v, want %d created", summary, err, b.N)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
}
