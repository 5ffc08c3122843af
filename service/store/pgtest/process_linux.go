package pgtest

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// asServer returns the attributes of a process of the server. PostgreSQL does not run as root, so root runs it as
// another user. The kernel ends the process with the thread that started it.
func asServer() *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Getuid() == 0 {
		uid, gid := serverUser()
		attributes.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	return attributes
}

// giveToServer makes the user of the server the owner of a folder.
func giveToServer(dir string) error {
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid := serverUser()
	return os.Chown(dir, int(uid), int(gid))
}

// serverUser returns an unprivileged user.
func serverUser() (uid, gid uint32) {
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		u, err := strconv.ParseUint(found.Uid, 10, 32)
		g, err2 := strconv.ParseUint(found.Gid, 10, 32)
		if err == nil && err2 == nil {
			return uint32(u), uint32(g)
		}
	}
	return 65534, 65534
}
