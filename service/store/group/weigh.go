package group

import "github.com/yourorg/userservice/service/user"

// unitBytes is the size of a unit of work. A change is at least one unit.
const unitBytes = 2 << 10

// weigh returns the weight of a batch in the queue: at least QueueBytes/QueueLength, so that at most
// QueueLength batches are queued, and at most CallerBytes.
func weigh(batch user.Batch) int64 {
	bytes := 0
	for i := range batch.Changes {
		bytes += weighOp(batch.Changes[i].Op) + weighPrepared(batch.Changes[i].Op)
	}
	return int64(min(max(bytes, QueueBytes/QueueLength), CallerBytes))
}

// weighPrepared estimates the memory use of what decide.Prepare returns, without tokens: a copy of a user and its details.
func weighPrepared(op user.Op) int {
	if create, ok := op.(*user.Create); ok {
		return 2 * weighUser(&create.Values)
	}
	return 0
}

// weighOp estimates the memory use of an op.
func weighOp(op user.Op) int {
	bytes := 256
	switch op := op.(type) {
	case *user.Create:
		bytes += weighUser(&op.Values) + 8*(len(op.Keys.Username)+len(op.Keys.Email)) // with its tokens
	case *user.Record:
		bytes += weighMap(op.Details)
	case *user.Update:
		bytes += weighUser(&op.Patch.Values)
		for key, value := range op.Patch.Entries {
			bytes += 64 + len(key)
			if value != nil {
				bytes += len(*value)
			}
		}
	}
	return bytes
}

func weighUser(u *user.User) (bytes int) {
	for i := range user.Fields() {
		switch f := &user.Fields()[i]; {
		case f.Text != nil:
			bytes += len(*f.Text(u))
		case f.List != nil:
			for _, element := range *f.List(u) {
				bytes += 16 + len(element)
			}
		case f.Map != nil:
			bytes += weighMap(*f.Map(u))
		}
	}
	return bytes
}

func weighMap(m map[string]string) (bytes int) {
	for key, value := range m {
		bytes += 64 + len(key) + len(value)
	}
	return bytes
}
