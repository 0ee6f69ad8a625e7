package main

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// Op is one call of one client on one znode, as a line of the history has it.
type Op struct {
	Client int    `json:"client"`
	Key    string `json:"key"`
	// create, set, delete, get (after a sync)
	Kind  string `json:"op"`
	Value string `json:"value"`
	// The version a set or delete asks for; -1 is any.
	Version int32 `json:"version"`
	// Nanoseconds; no return means that no answer came.
	Call   int64  `json:"call"`
	Return *int64 `json:"return"`
	// ok, exists, nonode, badversion, unknown
	Result     string `json:"result"`
	GotValue   string `json:"got_value"`
	GotVersion int32  `json:"got_version"`
	// The zxid that last changed it, of the answer's stat; 0 where the answer has none.
	Zxid int64 `json:"zxid"`
}

// A znode. Zxid is that of its last change where IsKnown, else a lower bound.
type state struct {
	Exists  bool
	Value   string
	Version int32
	Zxid    int64
	IsKnown bool
}

func (s state) changed(zxid int64) (state, bool) {
	if zxid == 0 {
		s.IsKnown = false
		return s, true
	}
	if zxid <= s.Zxid {
		return s, false
	}
	s.Zxid, s.IsKnown = zxid, true
	return s, true
}

// seen is a read of the zxid.
func (s state) seen(zxid int64) (state, bool) {
	if s.IsKnown {
		return s, zxid == s.Zxid
	}
	return s.changed(zxid)
}

func (s state) fits(version int32) bool {
	return version == -1 || version == s.Version
}

// step says whether op can have happened in state s, and what the state is afterwards.
func step(s state, op Op) (bool, state) {
	if op.Result == "unknown" {
		// It may have been done. That it was not is the same as being done after everything else.
		switch {
		case op.Kind == "create" && !s.Exists:
			s, _ = state{Exists: true, Value: op.Value, Zxid: s.Zxid}.changed(0)
		case op.Kind == "set" && s.Exists && s.fits(op.Version):
			s.Value, s.Version, s.IsKnown = op.Value, s.Version+1, false
		case op.Kind == "delete" && s.Exists && s.fits(op.Version):
			s = state{Zxid: s.Zxid}
		}
		return true, s
	}
	if op.Result == "nonode" {
		return op.Kind != "create" && !s.Exists, s
	}
	if op.Result == "exists" {
		return op.Kind == "create" && s.Exists, s
	}
	if op.Result == "badversion" {
		return (op.Kind == "set" || op.Kind == "delete") && s.Exists && !s.fits(op.Version), s
	}
	if op.Result != "ok" {
		return false, s
	}
	switch op.Kind {
	case "create":
		if s.Exists {
			return false, s
		}
		next, ok := state{Exists: true, Value: op.Value, Zxid: s.Zxid}.changed(op.Zxid)
		return ok, next
	case "set":
		if !s.Exists || !s.fits(op.Version) || op.GotVersion != s.Version+1 {
			return false, s
		}
		s.Value, s.Version = op.Value, s.Version+1
		next, ok := s.changed(op.Zxid)
		return ok, next
	case "delete":
		if !s.Exists || !s.fits(op.Version) {
			return false, s
		}
		return true, state{Zxid: s.Zxid}
	case "get":
		if !s.Exists || op.GotValue != s.Value || op.GotVersion != s.Version {
			return false, s
		}
		next, ok := s.seen(op.Zxid)
		return ok, next
	}
	return false, s
}

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		of := map[string][]porcupine.Operation{}
		var keys []string
		for _, op := range history {
			key := op.Input.(Op).Key
			if _, seen := of[key]; !seen {
				keys = append(keys, key)
			}
			of[key] = append(of[key], op)
		}
		parts := make([][]porcupine.Operation, 0, len(keys))
		for _, key := range keys {
			parts = append(parts, of[key])
		}
		return parts
	},
	Init: func() interface{} { return state{} },
	Step: func(s, input, _ interface{}) (bool, interface{}) {
		ok, next := step(s.(state), input.(Op))
		return ok, next
	},
	DescribeOperation: func(input, _ interface{}) string {
		op := input.(Op)
		return fmt.Sprintf("%s(%q, v%d) -> %s %q v%d zxid %x", op.Kind, op.Value, op.Version, op.Result,
			op.GotValue, op.GotVersion, op.Zxid)
	},
	DescribeState: func(s interface{}) string { return fmt.Sprintf("%+v", s) },
}
