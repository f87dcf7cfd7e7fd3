// Checks a recorded history of reads and writes of todos for linearizability, one register for each todo, with
// porcupine (https://github.com/anishathalye/porcupine). Usage: go run . HISTORY.jsonl
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

// record is one line: a write if Write is set, otherwise a read; without End it was not answered.
type record struct {
	Process int     `json:"process"`
	Todo    int64   `json:"todo"`
	Start   int64   `json:"start"`
	End     *int64  `json:"end"`
	Write   *string `json:"write"`
	Title   string  `json:"title"`
}

type input struct {
	todo  int64
	write bool
	value string
}

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byTodo := map[int64][]porcupine.Operation{}
		for _, operation := range history {
			todo := operation.Input.(input).todo
			byTodo[todo] = append(byTodo[todo], operation)
		}
		var parts [][]porcupine.Operation
		for _, part := range byTodo {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() interface{} { return "0" },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		if operation := in.(input); operation.write {
			return true, operation.value
		}
		return out.(string) == state.(string), state
	},
}

func read(path string) ([]porcupine.Operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var history []porcupine.Operation
	lines := bufio.NewScanner(file)
	client := 1000
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, err
		}
		operation := porcupine.Operation{ClientId: r.Process, Call: r.Start, Output: r.Title}
		operation.Input = input{todo: r.Todo, write: r.Write != nil}
		if r.Write != nil {
			operation.Input = input{todo: r.Todo, write: true, value: *r.Write}
		}
		if r.End == nil {
			// May take effect at any later time; its process goes on, so it counts as a process of its own.
			operation.Return = math.MaxInt64
			operation.ClientId = client
			client++
		} else {
			operation.Return = *r.End
		}
		history = append(history, operation)
	}
	return history, lines.Err()
}

func main() {
	history, err := read(os.Args[1])
	if err != nil || len(history) == 0 {
		fmt.Println("no history:", err)
		os.Exit(2)
	}
	started := time.Now()
	result := porcupine.CheckOperationsTimeout(model, history, 5*time.Minute)
	fmt.Printf("porcupine: %d operations, %s in %v\n", len(history), result, time.Since(started).Round(time.Millisecond))
	if result != porcupine.Ok {
		os.Exit(1)
	}
}
