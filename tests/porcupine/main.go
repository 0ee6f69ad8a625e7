// Command porcupine checks a history of znode calls for linearizability: each call must look as if it happened at one
// moment between its begin and its end, znode by znode.
//
//	porcupine HISTORY.jsonl [SECONDS]
//
// Exit 0: it is linearizable; 1: it is not, and HISTORY.jsonl.html shows where; 2: could not tell.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
)

func read(path string) ([]porcupine.Operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var history []porcupine.Operation
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var op Op
		if err := json.Unmarshal(lines.Bytes(), &op); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(history)+1, err)
		}
		end := int64(math.MaxInt64)
		if op.Return != nil {
			end = *op.Return
		}
		history = append(history, porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Return: end})
	}
	return history, lines.Err()
}

func check(history []porcupine.Operation, limit time.Duration) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	return porcupine.CheckOperationsVerbose(model, history, limit)
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: porcupine HISTORY.jsonl [SECONDS]")
		os.Exit(2)
	}
	limit := 60 * time.Second
	if len(os.Args) > 2 {
		seconds, err := strconv.Atoi(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, "porcupine:", err)
			os.Exit(2)
		}
		limit = time.Duration(seconds) * time.Second
	}
	history, err := read(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "porcupine:", err)
		os.Exit(2)
	}
	result, info := check(history, limit)
	switch result {
	case porcupine.Ok:
		fmt.Printf("linearizable: %d calls\n", len(history))
	case porcupine.Unknown:
		fmt.Printf("not decided within %s: %d calls\n", limit, len(history))
		os.Exit(2)
	default:
		page := os.Args[1] + ".html"
		if err := porcupine.VisualizePath(model, info, page); err != nil {
			page = err.Error()
		}
		fmt.Printf("NOT linearizable: %d calls, see %s\n", len(history), page)
		// Which znode, to look at first.
		for _, part := range model.Partition(history) {
			if r, _ := check(part, limit); r == porcupine.Illegal {
				fmt.Printf("znode %s: %d calls\n", part[0].Input.(Op).Key, len(part))
			}
		}
		os.Exit(1)
	}
}
