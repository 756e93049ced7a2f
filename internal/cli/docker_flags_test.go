package cli

// runFlagLines are flags of `run` and `create`, good and bad. Every flag that
// Docker 28 lists for Linux is here.
func runFlagLines() []string {
	return []string{
		"", "--name web", "--platform linux/arm64", "--pull never", "--pull bad", "-q",
		// process
		"-a stdin", "-a STDOUT -a stderr", "-a nothing", "-i", "-it", "-t", "--tty=false",
		"--entrypoint /bin/sh", "--entrypoint=", "-e A=1 -e HOME -e NOSUCHVARIABLE", "-e =x", "--env-file ENVFILE -e A=2", "--env-file /nonexistent",
		"-u 1000:1000", "--group-add audio --group-add 5", "-w /tmp", "-h host", "--domainname example.org",
		"-l a=b -l c", "--label-file LABELFILE -l x=2", "-l =x", "--annotation a=b --annotation c", "--init", "--init=false",
		// lifecycle
		"--rm", "--rm=false", "--restart always", "--restart on-failure:3", "--restart unless-stopped", "--restart :3", "--restart on-failure:x", "--rm --restart always",
		"--stop-signal SIGINT", "--stop-timeout 0", "--stop-timeout 7",
		// resources
		"--memory 64m", "-m 1g --memory-swap -1 --memory-reservation 32m", "--memory x", "--memory-swappiness 0", "--memory-swappiness 101", "--memory-swappiness -1",
		"--oom-kill-disable", "--oom-score-adj -500", "--shm-size 128m", "--cpus 1.5", "--cpus .000000001", "--cpus .0000000001", "--cpus x",
		"-c 512", "--cpu-period 100000 --cpu-quota 50000", "--cpu-rt-period 1000 --cpu-rt-runtime 500", "--cpuset-cpus 0-1 --cpuset-mems 0",
		"--pids-limit 100", "--pids-limit -1", "--blkio-weight 300", "--blkio-weight-device /dev/sda:200", "--blkio-weight-device /dev/sda:5", "--blkio-weight-device sda:200",
		"--device-read-bps /dev/sda:1mb", "--device-write-bps /dev/sda:1k --device-write-bps /dev/sdb:2", "--device-read-iops /dev/sda:100", "--device-write-iops /dev/sda:x", "--device-write-iops /dev/sda:5",
		"--ulimit nofile=1024:2048", "--ulimit nofile=5 --ulimit core=-1 --ulimit nofile=6:7", "--ulimit nosuch=1", "--ulimit nofile=7:6", "--cgroup-parent /x",
		"--kernel-memory 5m",
		// devices
		"--device /dev/fuse", "--device /dev/fuse:/dev/x:r", "--device /dev/fuse:rw", "--device /dev/fuse:/dev/../dev/y", "--device /dev/fuse:x:y:z", "--device relative", "--device /dev/a:/dev/b:q",
		"--device vendor.com/class=name", "--device vendor.com/class=a --device /dev/null --device v.io/cl=all", "--device-cgroup-rule c_1:*_rwm",
		"--device-cgroup-rule x", "--gpus all", "--gpus 2", "--gpus device=0,count=1", "--gpus \"device=0,1\"", "--gpus driver=nvidia,capabilities=utility", "--gpus x", "--gpus all --gpus count=2,options=a=b",
		// security
		"--cap-add NET_ADMIN --cap-drop ALL", "--privileged", "--read-only", "--security-opt no-new-privileges", "--security-opt no-new-privileges=false",
		"--security-opt seccomp=unconfined", "--security-opt seccomp=SECCOMP", "--security-opt seccomp=/nonexistent", "--security-opt label:disable", "--security-opt label=type:x",
		"--security-opt apparmor=unconfined", "--security-opt systempaths=unconfined", "--security-opt x", "--security-opt seccomp=builtin",
		"--userns host", "--userns x", "--cgroupns private", "--cgroupns host", "--cgroupns x", "--ipc host", "--ipc container:x", "--ipc shareable", "--pid host", "--pid container:x", "--pid x", "--uts host", "--uts x",
		"--sysctl net.ipv4.ip_forward=1 --sysctl kernel.shmmax=5", "--sysctl kernel.hostname=x", "--sysctl net.x", "--runtime crun", "--isolation default",
		// network
		"--network none", "--network host", "--network bridge", "--network container:x", "--network mynet", "--net mynet --network-alias a --network-alias b",
		"--network name=mynet,alias=a,alias=b,ip=10.0.0.5,ip6=fd00::5,mac-address=02:42:ac:11:00:02,driver-opt=com.example.x=y,gw-priority=5", "--network name=mynet,bogus=1", "--network name=mynet,gw-priority=x",
		"--network a --network b", "--network a --network a", "--network a --network bridge", "--network-alias a", "--network alias=x", "--network name=a,ip=10.0.0.1 --ip 10.0.0.2",
		"--ip 172.17.0.9", "--ip6 fd00::9", "--mac-address 92:d0:c6:0a:29:33", "--mac-address nonsense", "--link-local-ip 169.254.1.1",
		"--add-host a:1.2.3.4 --add-host b=::1 --add-host c:[::1] --add-host d:host-gateway", "--add-host a", "--add-host a:x", "--dns 1.1.1.1 --dns 2001:0db8::0001", "--dns x",
		"--dns-search example.com --dns-search .", "--dns-search -x", "--dns-option ndots:1 --dns-opt rotate", "--link c:alias", "--network mynet --link c:alias", "--link a:b:c",
		// ports
		"-p 80", "-p 8080:80", "-p 127.0.0.1:8080:80/udp", "-p 127.0.0.1::80", "-p [::1]:8080:80", "-p 8000-8002:80-82", "-p 8000-8002:80", "-p 8000-8001:80-82", "-p 80-82", "-p x", "-p 8080:x",
		"-p 70000:80", "-p 1.2.3:80:80", "-p published=8080,target=80,protocol=udp", "-p published=8080,x", "-p 8080:80/bogus", "-p 8080:80/TCP", "-p 8080:80/sctp", "-p 8080:80 -p 8081:80", "-p :80", "-p 80:",
		"-P", "--expose 80 --expose 90/udp", "--expose 100-102", "--expose 102-100", "--expose a:b", "--expose 80 -p 81:80",
		// mounts
		"-v /host:/ctr", "-v /host:/ctr:ro,z", "-v name:/ctr", "-v name:/ctr:nocopy", "-v /anon", "-v /a", "-v /anon -v /anon -v n:/x -v n:/x", "-v ~x:/y", "-v a:b:c:d", "-v :/x", "-v /x:", "-v /x::ro", "-v c:/x:/y",
		"--tmpfs /tmp", "--tmpfs /tmp:size=5m,mode=1777", "--volumes-from a --volumes-from b:ro", "--volume-driver local",
		"--mount type=bind,src=/a,dst=/b", "--mount type=bind,source=/a,target=/b,readonly,bind-propagation=rslave", "--mount type=bind,src=/a,dst=/b,ro=true,bind-recursive=readonly,bind-propagation=rprivate",
		"--mount type=bind,src=/a,dst=/b,bind-recursive=readonly", "--mount type=bind,src=/a,dst=/b,bind-recursive=writable,ro", "--mount type=bind,src=/a,dst=/b,bind-recursive=disabled", "--mount type=bind,src=/a,dst=/b,bind-recursive=x",
		"--mount type=bind,src=/a,dst=/b,bind-nonrecursive", "--mount type=volume,src=v,dst=/b,volume-subpath=x,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=type=tmpfs", "--mount dst=/b", "--mount src=v,dst=/b,volume-nocopy=false",
		"--mount type=tmpfs,dst=/b,tmpfs-size=64m,tmpfs-mode=1770", "--mount type=tmpfs,dst=/b,tmpfs-mode=9", "--mount type=image,src=busybox,dst=/b,image-subpath=bin", "--mount type=bind,dst=/b,volume-nocopy", "--mount type=volume,dst=/b,tmpfs-size=1",
		"--mount type=bind,src=/a", "--mount bogus", "--mount type=bind,src=/a,dst=/b,bogus=1", "--mount type=bind,src=/a,dst=/b,consistency=cached", "--mount type=bind,src=/a,dst=/b,readonly=x", "--mount type=npipe,src=a,dst=b",
		// health
		"--health-cmd true --health-interval 5s --health-timeout 3s --health-retries 2 --health-start-period 1m --health-start-interval 2s", "--no-healthcheck", "--no-healthcheck --health-cmd true", "--health-interval -1s", "--health-retries -1", "--health-timeout x",
		// logging
		"--log-driver json-file --log-opt max-size=5m --log-opt max-file=2", "--log-driver none --log-opt a=b", "--log-driver none", "--storage-opt size=5G", "--storage-opt x", "--disable-content-trust",
		"--use-api-socket", "--use-api-socket -e DOCKER_CONFIG=/x -v /a:/b", "--use-api-socket=false",
		"--nosuchflag", "-Z", "--memory",
	}
}
