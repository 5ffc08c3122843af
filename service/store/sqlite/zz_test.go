package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"modernc.org/libc"
	msqlite "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func open(b *testing.B) driver.Conn {
	c, err := msqlite.NewConnector("file:" + filepath.Join(b.TempDir(), "x.db") + "?_pragma=journal_mode(wal)&_pragma=cache_size(-16000)")
	must(err)
	conn, err := c.Connect(context.Background())
	must(err)
	ex := func(q string, args ...driver.NamedValue) {
		_, err := conn.(driver.ExecerContext).ExecContext(context.Background(), q, args)
		must(err)
	}
	ex("create table users(user_id integer primary key, username text, username_key text unique, email text, email_key text unique, status int, status_time int, status_position int, created_at int, updated_at int, tags blob, metadata blob, version int, deleted_at int, purge_at int) strict")
	ex("create table log(position integer primary key, user_id int, time int, action text, details blob) strict")
	ex("begin")
	for i := range 100000 {
		ex(fmt.Sprintf("insert into users values(%d,'User%d','user%d','User%d@example.org','user%d@example.org',1,1700000000000000,%d,1700000000000000,1700000000000000,x'0102030405060708',x'0102030405060708',1,null,null)", i*1000, i, i, i, i, i))
		ex(fmt.Sprintf("insert into log values(%d,%d,1700000000000000,'user.created',x'01020304050607080102030405060708010203040506070801020304050607080102030405060708')", i+1, i*1000))
	}
	ex("commit")
	return conn
}

const q = "select username,email,status,status_time,status_position,created_at,updated_at,tags,metadata,version,deleted_at,purge_at from users where user_id=?"

func BenchmarkDriver(b *testing.B) {
	conn := open(b)
	st, err := conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), q)
	must(err)
	dest := make([]driver.Value, 12)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		r, err := st.(driver.StmtQueryContext).QueryContext(context.Background(), []driver.NamedValue{{Ordinal: 1, Value: int64(i*7919%100000) * 1000}})
		must(err)
		must(r.Next(dest))
		r.Close()
	}
}

func BenchmarkDriverLog(b *testing.B) {
	conn := open(b)
	st, err := conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), "select position,user_id,time,action,details from log where position>? order by position limit 1000")
	must(err)
	dest := make([]driver.Value, 5)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for n < b.N {
		r, err := st.(driver.StmtQueryContext).QueryContext(context.Background(), []driver.NamedValue{{Ordinal: 1, Value: int64(n % 90000)}})
		must(err)
		for {
			if err := r.Next(dest); err == io.EOF {
				break
			}
			n++
		}
		r.Close()
	}
}

func BenchmarkDB(b *testing.B) {
	conn := open(b)
	_ = conn
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "y.db"))
	must(err)
	_, err = db.Exec("create table log(position integer primary key, user_id int, time int, action text, details blob) strict")
	must(err)
	_, err = db.Exec("insert into log values(1,1,1,'x',null)")
	must(err)
	st, err := db.Prepare("select position,user_id,time,action,details from log where position=?")
	must(err)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		var a, bb, c int64
		var d string
		var e []byte
		must(st.QueryRow(1).Scan(&a, &bb, &c, &d, &e))
	}
}

func rawOpen(b *testing.B) (*libc.TLS, uintptr, string) {
	dir := b.TempDir()
	_ = dir
	conn := open(b)
	_ = conn
	return nil, 0, ""
}

func BenchmarkLib(b *testing.B) {
	tls := libc.NewTLS()
	c, err := msqlite.NewConnector("file:" + filepath.Join(b.TempDir(), "x.db"))
	must(err)
	_ = c
	conn := open(b)
	// find path through pragma
	st, err := conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), "select file from pragma_database_list")
	must(err)
	r, err := st.(driver.StmtQueryContext).QueryContext(context.Background(), nil)
	must(err)
	dest := make([]driver.Value, 1)
	must(r.Next(dest))
	r.Close()
	path, _ := libc.CString(dest[0].(string))
	pp := libc.Xmalloc(tls, 8)
	if rc := lib.Xsqlite3_open_v2(tls, path, pp, lib.SQLITE_OPEN_READWRITE|lib.SQLITE_OPEN_NOMUTEX, 0); rc != 0 {
		b.Fatal(rc)
	}
	db := *(*uintptr)(ptr(pp))
	cq, _ := libc.CString(q)
	if rc := lib.Xsqlite3_prepare_v2(tls, db, cq, -1, pp, 0); rc != 0 {
		b.Fatal(rc)
	}
	stmt := *(*uintptr)(ptr(pp))
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			lib.Xsqlite3_bind_int64(tls, stmt, 1, int64(i*7919%100000)*1000)
			if rc := lib.Xsqlite3_step(tls, stmt); rc != lib.SQLITE_ROW {
				b.Fatal(rc)
			}
			var sum int64
			for _, i := range []int32{2, 3, 4, 5, 6, 9, 10, 11} {
				sum += lib.Xsqlite3_column_int64(tls, stmt, i)
			}
			for _, i := range []int32{0, 1, 7, 8} {
				p := lib.Xsqlite3_column_blob(tls, stmt, i)
				n := lib.Xsqlite3_column_bytes(tls, stmt, i)
				s := string((*libc.RawMem)(ptr(p))[:n:n])
				sum += int64(len(s))
			}
			lib.Xsqlite3_reset(tls, stmt)
		}
	})
	cq, _ = libc.CString("select position,user_id,time,action,details from log where position>? order by position limit 1000")
	if rc := lib.Xsqlite3_prepare_v2(tls, db, cq, -1, pp, 0); rc != 0 {
		b.Fatal(rc)
	}
	stmt = *(*uintptr)(ptr(pp))
	b.Run("log", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for n < b.N {
			lib.Xsqlite3_bind_int64(tls, stmt, 1, int64(n%90000))
			var sum int64
			for lib.Xsqlite3_step(tls, stmt) == lib.SQLITE_ROW {
				for _, i := range []int32{0, 1, 2} {
					sum += lib.Xsqlite3_column_int64(tls, stmt, i)
				}
				for _, i := range []int32{3, 4} {
					p := lib.Xsqlite3_column_blob(tls, stmt, i)
					n := lib.Xsqlite3_column_bytes(tls, stmt, i)
					s := string((*libc.RawMem)(ptr(p))[:n:n])
					sum += int64(len(s))
				}
				n++
			}
			lib.Xsqlite3_reset(tls, stmt)
		}
	})
}
