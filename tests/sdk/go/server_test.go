// The Go SDK, unchanged, against the real server, in both encodings.
//
// DRUMLINE names the program of the server.
package drumline

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	secret   = "a-secret-for-tests"
	key      = "a-key-for-tests"
	patience = 30 * time.Second
)

// object is a JSON object.
type object = map[string]any

func configuration(backend string) object {
	history := object{
		"history_size": 300, "history_ttl": "300s", "force_recovery": true,
		"allow_subscribe_for_client": true, "allow_publish_for_subscriber": true,
		"allow_history_for_subscriber": true,
	}
	with := func(name string, options object) object {
		namespace := object{"name": name}
		for key, value := range history {
			namespace[key] = value
		}
		for key, value := range options {
			namespace[key] = value
		}
		return namespace
	}
	return object{
		"client": object{
			"token":         object{"hmac_secret_key": secret},
			"ping_interval": "2s", "pong_timeout": "1s",
		},
		"websocket": object{"compression": true},
		"http_api":  object{"key": key},
		"rpc": object{
			"proxy":             object{"endpoint": backend},
			"without_namespace": object{"proxy_enabled": true},
		},
		"channel": object{"namespaces": []object{
			with("stream", object{}),
			with("small", object{"history_size": 2}),
			with("cache", object{"force_recovery_mode": "cache"}),
			with("doc", object{"allowed_delta_types": []string{"fossil"}, "delta_publish": true}),
			with("tagged", object{"allow_tags_filter": true}),
			{
				"name": "room", "presence": true, "join_leave": true,
				"allow_subscribe_for_client": true, "allow_presence_for_subscriber": true,
			},
			{"name": "closed"},
		}},
		"shutdown": object{"spread": "0s"},
	}
}

// server is the program under test.
type server struct {
	port  int
	child *exec.Cmd
}

var node server

// TestMain runs the server while the tests run, and checks that SIGTERM ends it with status 0.
func TestMain(tests *testing.M) {
	status, err := serveFor(tests.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func serveFor(tests func() int) (int, error) {
	backend := httptest.NewServer(http.HandlerFunc(answerCall))
	defer backend.Close()
	folder, err := os.MkdirTemp("", "drumline")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(folder)
	text, err := json.Marshal(configuration(backend.URL))
	if err != nil {
		return 1, err
	}
	file := filepath.Join(folder, "config.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return 1, err
	}
	if err := node.start(file); err != nil {
		return 1, err
	}
	defer func() { _ = node.child.Process.Kill() }()
	status := tests()
	if err := node.child.Process.Signal(syscall.SIGTERM); err != nil {
		return status, err
	}
	return status, node.child.Wait()
}

func (s *server) start(file string) error {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = probe.Addr().(*net.TCPAddr).Port
	_ = probe.Close()
	s.child = exec.Command(os.Getenv("DRUMLINE"), "serve", "--config", file,
		"--http_server.port", fmt.Sprint(s.port), "--shards", "2",
		"--engine.slots_per_shard", "500")
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "DRUMLINE_") && !strings.HasPrefix(variable, "CENTRIFUGO_") {
			s.child.Env = append(s.child.Env, variable)
		}
	}
	s.child.Stderr = os.Stderr
	if err := s.child.Start(); err != nil {
		return fmt.Errorf("cannot start the server: %w", err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/health", s.port))
		if err == nil {
			_ = response.Body.Close()
			return nil
		}
	}
	_ = s.child.Process.Kill()
	return fmt.Errorf("the server does not answer on port %d", s.port)
}

// answerCall is the backend: it doubles a number, or refuses a method.
func answerCall(writer http.ResponseWriter, request *http.Request) {
	var call struct {
		Method string
		User   string
		Data   struct{ N int }
	}
	if err := json.NewDecoder(request.Body).Decode(&call); err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	answer := object{"result": object{"data": object{"twice": call.Data.N * 2, "user": call.User}}}
	if call.Method != "double" {
		answer = object{"error": object{"code": 1234, "message": "no such method"}}
	}
	writer.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(writer).Encode(answer)
}

// api calls a method of the HTTP API and returns its result.
func api(t *testing.T, method string, body object) object {
	t.Helper()
	text, err := json.Marshal(body)
	ok(t, err)
	url := fmt.Sprintf("http://127.0.0.1:%d/api/%s", node.port, method)
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(text))
	ok(t, err)
	request.Header.Set("X-API-Key", key)
	response, err := http.DefaultClient.Do(request)
	ok(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	ok(t, err)
	var parsed struct {
		Result object
		Error  object
	}
	ok(t, json.Unmarshal(answer, &parsed))
	if parsed.Error != nil || parsed.Result == nil {
		t.Fatalf("%s: %s", method, answer)
	}
	return parsed.Result
}

// token signs the claims of a connection or subscription token.
func token(claims object) string {
	part := func(value any) string {
		text, _ := json.Marshal(value)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(object{"alg": "HS256", "typ": "JWT"}) + "." + part(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func inSeconds(seconds int64) int64 { return time.Now().Unix() + seconds }

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// equal compares by the printed form, which suffices for the values of these tests.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Fatalf("%s: got %+v, want %+v", what, got, want)
	}
}

// next takes the next event of a channel, with a bound.
func next[T any](t *testing.T, what string, events <-chan T) T {
	t.Helper()
	select {
	case event := <-events:
		return event
	case <-time.After(patience):
		t.Fatalf("waited too long for: %s", what)
		panic("not reached")
	}
}

// none checks that a channel holds no event.
func none[T any](t *testing.T, what string, events <-chan T) {
	t.Helper()
	select {
	case event := <-events:
		t.Fatalf("%s: %+v", what, event)
	default:
	}
}
