// Checks an unpacked export with the packages of Go's checksum database, golang.org/x/mod/sumdb/note
// and .../tlog, and nothing of this project: signatures, tiles, every entry's inclusion, and that
// each checkpoint's tree begins with the one before.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go run main.go DIR KEY COUNT-OF-CHECKPOINTS
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func fail(format string, args ...interface{}) {
	fmt.Printf("REFUSED: "+format+"\n", args...)
	os.Exit(1)
}

// open verifies a checkpoint's signature and reads its first three lines.
func open(data []byte, verifier note.Verifier) tlog.Tree {
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		fail("checkpoint: %v", err)
	}
	lines := strings.Split(opened.Text, "\n")
	if lines[0] != verifier.Name() {
		fail("origin %q", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		fail("size: %v", err)
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		fail("root: %v", err)
	}
	return tlog.Tree{N: size, Hash: root}
}

// directory reads C2SP tile paths, which leave out the height that Go's have.
type directory struct{ dir string }

func (d directory) Height() int { return 8 }

func (d directory) SaveTiles([]tlog.Tile, [][]byte) {}

func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(d.dir, path))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func bundle(dir, kind string, index, size int64) [][]byte {
	tile := tlog.Tile{H: 8, L: 0, N: index, W: 256}
	if left := size - index*256; left < 256 {
		tile.W = int(left)
	}
	path := strings.Replace(tile.Path(), "tile/8/0/", kind+"/", 1)
	data, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		fail("%v", err)
	}
	var parts [][]byte
	for len(data) > 0 {
		length := int(binary.BigEndian.Uint16(data))
		parts = append(parts, data[2:2+length])
		data = data[2+length:]
	}
	if len(parts) != tile.W {
		fail("%s has %d parts, not %d", path, len(parts), tile.W)
	}
	return parts
}

func main() {
	dir := os.Args[1]
	verifier, err := note.NewVerifier(os.Args[2])
	if err != nil {
		fail("key: %v", err)
	}
	count, _ := strconv.ParseInt(os.Args[3], 10, 64)
	newest, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		fail("%v", err)
	}
	tree := open(newest, verifier)
	hashes := tlog.TileHashReader(tree, directory{dir})
	for first := int64(0); first < tree.N; first += 256 {
		for place, entry := range bundle(dir, "tile/entries", first/256, tree.N) {
			index := first + int64(place)
			proof, err := tlog.ProveRecord(tree.N, index, hashes)
			if err != nil {
				fail("entry %d: %v", index, err)
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
				fail("entry %d: %v", index, err)
			}
		}
	}
	proven := 0
	var last tlog.Tree
	for first := int64(0); first < count; first += 256 {
		for _, data := range bundle(dir, "checkpoints", first/256, count) {
			this := open(data, verifier)
			if last.N > 0 {
				proof, err := tlog.ProveTree(this.N, last.N, hashes)
				if err != nil {
					fail("checkpoint of %d: %v", this.N, err)
				}
				if err := tlog.CheckTree(proof, this.N, this.Hash, last.N, last.Hash); err != nil {
					fail("checkpoint of %d: %v", this.N, err)
				}
				proven++
			}
			last = this
		}
	}
	fmt.Printf("VERIFIED: %d entries, %d checkpoints, %d consistency proofs\n", tree.N, count, proven)
}
