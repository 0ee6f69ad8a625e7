package main

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// history makes calls one after the other, each overlapping none, from their lines.
func history(t *testing.T, lines ...string) []porcupine.Operation {
	var ops []porcupine.Operation
	for i, line := range lines {
		op := Op{Key: "/a", Version: -1}
		if err := json.Unmarshal([]byte(line), &op); err != nil {
			t.Fatal(err)
		}
		end := int64(10*i + 5)
		if op.Result == "unknown" {
			end = math.MaxInt64
		}
		ops = append(ops, porcupine.Operation{ClientId: i, Input: op, Call: int64(10 * i), Return: end})
	}
	return ops
}

func expect(t *testing.T, want porcupine.CheckResult, lines ...string) {
	t.Helper()
	if got, _ := check(history(t, lines...), time.Second); got != want {
		t.Errorf("%s, not %s: %v", got, want, lines)
	}
}

const created = `{"op":"create","value":"1","result":"ok","zxid":10}`

func TestLawful(t *testing.T) {
	expect(t, porcupine.Ok, created, `{"op":"get","result":"ok","got_value":"1","zxid":10}`,
		`{"op":"set","value":"2","version":0,"result":"ok","got_version":1,"zxid":11}`,
		`{"op":"set","value":"3","version":0,"result":"badversion"}`,
		`{"op":"create","result":"exists"}`,
		`{"op":"delete","version":1,"result":"ok"}`,
		`{"op":"get","result":"nonode"}`)
	lost := `{"op":"set","value":"2","version":0,"result":"unknown"}`
	expect(t, porcupine.Ok, created, lost, `{"op":"get","result":"ok","got_value":"1","zxid":10}`)
	expect(t, porcupine.Ok, created, lost, `{"op":"get","result":"ok","got_value":"2","got_version":1,"zxid":12}`)
	// Done late.
	expect(t, porcupine.Ok, created, lost, `{"op":"get","result":"ok","got_value":"1","zxid":10}`,
		`{"op":"get","result":"ok","got_value":"2","got_version":1,"zxid":12}`)
}

func TestUnlawful(t *testing.T) {
	// A lost write.
	expect(t, porcupine.Illegal, created, `{"op":"get","result":"nonode"}`)
	// A stale read.
	set := `{"op":"set","value":"2","result":"ok","got_version":1,"zxid":11}`
	expect(t, porcupine.Illegal, created, set, `{"op":"get","result":"ok","got_value":"1","zxid":10}`)
	// Two creates of one znode.
	expect(t, porcupine.Illegal, created, `{"op":"create","value":"2","result":"ok","zxid":11}`)
	// A version that two sets got.
	expect(t, porcupine.Illegal, created, set, `{"op":"set","value":"3","result":"ok","got_version":1,"zxid":12}`)
	// A zxid that goes back.
	expect(t, porcupine.Illegal, created, `{"op":"set","value":"2","result":"ok","got_version":1,"zxid":9}`)
	// A write without an answer that is undone.
	expect(t, porcupine.Illegal, created, `{"op":"set","value":"2","result":"unknown"}`,
		`{"op":"get","result":"ok","got_value":"2","got_version":1,"zxid":12}`,
		`{"op":"get","result":"ok","got_value":"1","got_version":0,"zxid":10}`)
	// Deleted, and there again.
	expect(t, porcupine.Illegal, created, `{"op":"delete","result":"ok"}`,
		`{"op":"get","result":"ok","got_value":"1","zxid":10}`)
}
