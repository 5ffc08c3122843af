//go:build !faults

package server

import "github.com/yourorg/userservice/service/user"

func withFault(store user.Store) user.Store { return store }
