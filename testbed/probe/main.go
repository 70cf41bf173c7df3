// Command probe runs in a pod of the test bed and shows that a restricted pod
// can do what an uploader has to: read and write the share, write its staging
// folder but nothing else, and reach Azurite by the bed's address.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"syscall"
)

func main() {
	if err := probe(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func probe(target string) error {
	request, err := os.ReadFile("/mnt/nfs/request")
	if err != nil {
		return err
	}
	if err := os.WriteFile("/mnt/staging/copy", request, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile("/elsewhere", nil, 0o600); !errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("the root file system should be read-only, but: %w", err)
	}
	reply, err := http.Get("http://" + target)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	return os.WriteFile("/mnt/nfs/reply", request, 0o644)
}
