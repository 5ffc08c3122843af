package main_test

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"connectrpc.com/connect"
)

// Messages of the OpenTelemetry SDK are log lines without credentials. A collector that does
// not respond does not fail the shutdown.
func TestSDKMessagesAreLogged(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	var config net.ListenConfig
	mute, err := config.Listen(ctx, "tcp", "127.0.0.1:0") // never accepted
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
		t.Errorf("exit status with an unresponsive collector: %v", p.err)
	}
	p.output.await(t, `"level":"WARN"`, `"step":"flush spans"`)
	p.output.await(t, `"level":"WARN"`, "parse headers", `"input":"[redacted]"`)
	for line := range strings.Lines(p.output.all()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["level"] == nil || fields["msg"] == nil {
			t.Errorf("not a log line: %s", line)
		}
		if strings.Contains(line, "hunter2") {
			t.Errorf("log line contains a secret: %s", line)
		}
	}
}

// Only with --trust-trace-parent does the sampled flag of the caller decide, and does a call
// join the caller's trace.
func TestTrustTraceParent(t *testing.T) {
	t.Parallel()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for name, flags := range map[string][]string{"linked": nil, "trusted": {"--trust-trace-parent"}} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, hangTimeout)
			p := program{
				dir: t.TempDir(), flags: flags,
				env: []string{"OTEL_TRACES_EXPORTER=console", "OTEL_TRACES_SAMPLER=parentbased_always_off"},
			}.start(t)
			calling, info := connect.NewClientContext(ctx)
			info.RequestHeader().Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
			createOne(calling, t, p)
			p.terminate(t)
			if got := strings.Contains(p.output.all(), `"TraceID":"`+trace+`"`); got != (flags != nil) {
				t.Errorf("joined the caller's trace: %v\n%s", got, p.output)
			}
		})
	}
}
