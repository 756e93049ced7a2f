package ociruntime

import (
	"context"
	"os"
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/seccomp"
)

func featuresCommand(*flags) runner {
	return func(_ context.Context, _ *runtime, args []string) (int, error) {
		if len(args) > 0 {
			return 0, errs.InvalidArgument("unexpected argument %q", args[0])
		}
		return 0, printJSON(featureSet())
	}
}

// featureSet is what features.md and features-linux.md describe: what the
// program knows, not what this machine has.
func featureSet() *features.Features {
	yes, no := true, false
	actions, operators, archs, flags := seccomp.Supported()
	_, err := os.Stat("/sys/kernel/security/apparmor")
	appArmor := err == nil
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: strings.Fields("async bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noatime nodev " +
			"nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev " +
			"rdiratime relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid " +
			"rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent " +
			"slave strictatime suid symfollow sync tmpcopyup unbindable"),
		Linux: &features.Linux{
			Namespaces:      []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities:    capabilities(),
			Cgroup:          &features.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &yes},
			Seccomp:         &features.Seccomp{Enabled: &yes, Actions: actions, Operators: operators, Archs: archs, KnownFlags: flags, SupportedFlags: flags},
			Apparmor:        &features.Apparmor{Enabled: &appArmor},
			Selinux:         &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &no},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
		},
		Annotations: map[string]string{"org.gantry-containers.gantry-oci.version": Version},
	}
}

func capabilities() []string {
	var names []string
	for _, c := range capability.ListKnown() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}
