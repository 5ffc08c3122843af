package main_test

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// Whatever the environment says of traces, all that is printed is lines of the log, and
// no credential is in them; and a collector that does not answer does not turn a good
// stop into a bad one.
func TestTheSDKLogsAsTheServiceDoes(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	var config net.ListenConfig
	mute, err := config.Listen(ctx, "tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	p := program{
		dir: t.TempDir(), flags: []string{"--log-format", "json", "--log-level", "debug"},
		env: []string{
			"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + mute.Addr().String(),
			"OTEL_EXPORTER_OTLP_HEADERS=authorization hunter2,x=%zzhunter2,bad key=hunter2",
			"OTEL_EXPORTER_OTLP_TIMEOUT=hunter2", "OTEL_EXPORTER_OTLP_CERTIFICATE=/nowhere",
			"OTEL_BSP_SCHEDULE_DELAY=hunter2", "OTEL_RESOURCE_ATTRIBUTES=hunter2,team=%zz",
		},
	}.start(t)
	createOne(ctx, t, p)
	p.terminate(t)
	if p.err != nil {
		t.Errorf("a stop without its last spans is no good one: %v", p.err)
	}
	p.output.await(t, `"level":"WARN"`, `"step":"export the last spans"`)
	p.output.await(t, `"level":"WARN"`, "parse headers", `"input":"[redacted]"`)
	for line := range strings.Lines(p.output.all()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["level"] == nil || fields["msg"] == nil {
			t.Errorf("this is no line of the log: %s", line)
		}
		if strings.Contains(line, "hunter2") {
			t.Errorf("this repeats a secret: %s", line)
		}
	}
}

// Without --trust-trace-parent a caller cannot have a call recorded that the sampler
// leaves out; with it that is the caller's to say. Spans go to standard output.
func TestWhoseTraceItIs(t *testing.T) {
	t.Parallel()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for name, flags := range map[string][]string{"linked": nil, "trusted": {"--trust-trace-parent"}} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, time.Minute)
			p := program{
				dir: t.TempDir(), flags: flags,
				env: []string{"OTEL_TRACES_EXPORTER=console", "OTEL_TRACES_SAMPLER=parentbased_always_off"},
			}.start(t)
			calling, info := connect.NewClientContext(ctx)
			info.RequestHeader().Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
			createOne(calling, t, p)
			p.terminate(t)
			if got := strings.Contains(p.output.all(), `"TraceID":"`+trace+`"`); got != (flags != nil) {
				t.Errorf("the caller's trace was joined: %v\n%s", got, p.output)
			}
		})
	}
}
