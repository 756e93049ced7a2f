// Command whoami prints the name of the effective user.
package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
)

func main() {
	id := strconv.Itoa(os.Geteuid())
	u, err := user.LookupId(id)
	if err != nil {
		fmt.Fprintf(os.Stderr, "whoami: no user has the ID %s\n", id)
		os.Exit(1)
	}
	fmt.Println(u.Username)
}
