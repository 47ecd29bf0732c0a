// Package worker is the frame of a client that is told by its standard input what to do, and says on its standard
// output what came of it: a JSON object a line both ways (see worker.py).
package worker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
)

// Words of a command. Which of them are used is up to the command.
type Words struct {
	ID         int               `json:"id"`
	Do         string            `json:"do"`
	Bootstrap  string            `json:"bootstrap"`
	Topic      string            `json:"topic"`
	Last       Offsets           `json:"last"`   // read: the last offset to read of each partition
	Starts     Offsets           `json:"starts"` // read: where to begin; the beginning, where nothing is said
	Committed  bool              `json:"committed"`
	Group      string            `json:"group"`
	Protocol   string            `json:"protocol"` // of the group: classic or consumer
	Count      int               `json:"count"`
	Times      map[int32][]int64 `json:"times"`
	Partitions []int32           `json:"partitions"`
}

// Offsets per partition.
type Offsets map[int32]int64

// Command carries out one line; what it returns goes under "ok".
type Command func(Words) (any, error)

type answer struct {
	ID    int    `json:"id"`
	OK    any    `json:"ok"`
	Error string `json:"error,omitempty"`
}

// Run reads commands until the input ends. Each runs in a goroutine of its own.
func Run(commands map[string]Command) {
	var one sync.Mutex
	out := json.NewEncoder(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var words Words
		if err := json.Unmarshal(in.Bytes(), &words); err != nil {
			panic(err)
		}
		go func() {
			found := answer{ID: words.ID}
			command, known := commands[words.Do]
			if !known {
				found.Error = fmt.Sprintf("no such command: %q", words.Do)
			} else if ok, err := command(words); err != nil {
				found.Error = err.Error()
			} else {
				found.OK = ok
			}
			one.Lock()
			defer one.Unlock()
			if err := out.Encode(found); err != nil {
				panic(err)
			}
		}()
	}
}

// Version of a module this program was built with.
func Version(module string) string {
	about, _ := debug.ReadBuildInfo()
	for _, dependency := range about.Deps {
		if dependency.Path == module {
			return dependency.Version
		}
	}
	return "unknown"
}

// Record is one record: partition, offset, time, key, value, headers.
type Record [6]any

// Header is a name and a value.
type Header [2]any

// Reading collects records until every partition has given its last one.
type Reading struct {
	Records []Record
	missing Offsets
}

// NewReading wants what `last` says.
func NewReading(last Offsets) *Reading {
	missing := Offsets{}
	for partition, offset := range last {
		missing[partition] = offset
	}
	return &Reading{Records: []Record{}, missing: missing}
}

// Add takes a record unless its partition is complete; says whether all are now.
func (r *Reading) Add(partition int32, offset int64, record Record) bool {
	if last, missing := r.missing[partition]; missing {
		r.Records = append(r.Records, record)
		if offset >= last {
			delete(r.missing, partition)
		}
	}
	return len(r.missing) == 0
}

// Key of a partition in an answer: JSON has only strings there.
func Key(partition int32) string {
	return strconv.Itoa(int(partition))
}
