package runflags

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

// FuzzFlags feeds one value to every parser of a flag: none may panic, and a
// published port that is accepted names a port.
func FuzzFlags(f *testing.F) {
	for _, s := range []string{"", "80", "[::1]:8080-8090:80-90/udp", "type=bind,src=/a,dst=/b,ro", "name=n,alias=a,ip=1.2.3.4", "a.b/c=d", "/dev/a:/dev/b:rwm", "c 1:* rwm", "all", "device=0,count=1", "a:b:c", "c:\\x:/y", "/dev/sda:5mb", "=", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		exposed, bindings := network.PortSet{}, network.PortMap{}
		if publish(s, exposed, bindings) == nil && len(exposed) == 0 {
			t.Errorf("%q publishes nothing", s)
		}
		_ = expose(s, network.PortSet{})
		_, _ = parseMount(s)
		_, _, _ = parseVolume(s)
		_, _ = parseAttachment(s)
		_, _ = parseGPU(s)
		_, _ = parseDevice(s)
		_, _ = checkDeviceRule(s)
		_, _ = checkExtraHost(s)
		_, _ = checkSearchDomain(s)
		_, _ = parseBps(s)
		_, _ = parseWeight(s)
		_ = isCDI(s)
		if lines, err := parsePairs(strings.NewReader(s), nil); err == nil {
			for _, l := range lines {
				if !strings.Contains(l, "=") {
					t.Errorf("%q gives the variable %q without a value", s, l)
				}
			}
		}
	})
}
