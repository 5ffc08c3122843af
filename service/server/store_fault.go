//go:build faults

package server

import (
	"os"

	"github.com/yourorg/userservice/service/store/faulty"
	"github.com/yourorg/userservice/service/user"
)

// withFault plants the fault that USERD_FAULT names.
func withFault(store user.Store) user.Store { return faulty.New(store, os.Getenv("USERD_FAULT")) }
