package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func (a *app) registryServeCommand() *cobra.Command {
	return a.registryRole("serve", "Serve a registry of images")
}

func (a *app) registryGCCommand() *cobra.Command {
	return a.registryRole("gc", "Collect the garbage of a registry")
}

// registryRole becomes the role of gantryd, which knows the flags and their
// help: the registry is the process that was started, with its signals.
func (a *app) registryRole(name, short string) *cobra.Command {
	return &cobra.Command{
		Use:                name + " [OPTIONS]",
		Short:              short,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := findEngine()
			if err != nil {
				return fmt.Errorf("cannot be a registry: %w", err)
			}
			return become(path, append([]string{path, "registry", name}, args...), os.Environ())
		},
	}
}
