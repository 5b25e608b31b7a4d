package drumline

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// selfSigned returns a certificate for 127.0.0.1 and its key, as PEM text.
func selfSigned(t *testing.T) (string, string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "drumline"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ok(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ok(t, err)
	text := func(kind string, bytes []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	return text("CERTIFICATE", certificate), text("PRIVATE KEY", private)
}

func TestClientsConnectOverTLS(t *testing.T) {
	t.Parallel()
	certificate, private := selfSigned(t)
	config := configuration("http://127.0.0.1:1")
	config["http_server"] = object{"tls": object{
		"enabled": true, "cert_pem": certificate, "key_pem": private,
	}}
	text, err := json.Marshal(config)
	ok(t, err)
	file := filepath.Join(t.TempDir(), "config.json")
	ok(t, os.WriteFile(file, text, 0o600))
	var secure server
	ok(t, secure.start(file))
	t.Cleanup(func() {
		_ = secure.child.Process.Kill()
		_ = secure.child.Wait()
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	address := fmt.Sprintf("wss://127.0.0.1:%d/connection/websocket", secure.port)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, encoding := range protocols {
			c := encoding.isNew(address, centrifuge.Config{
				Token:             token(object{"sub": "secure"}),
				EnableCompression: true,
				TLSConfig: &tls.Config{
					RootCAs: roots, MinVersion: version, MaxVersion: version,
				},
			})
			heard := make(chan string, 10)
			s, err := c.NewSubscription(unique("stream:tls"))
			ok(t, err)
			s.OnPublication(func(e centrifuge.PublicationEvent) { heard <- string(e.Data) })
			subscribed := make(chan centrifuge.SubscribedEvent, 1)
			s.OnSubscribed(func(e centrifuge.SubscribedEvent) { subscribed <- e })
			ok(t, c.Connect())
			ok(t, s.Subscribe())
			next(t, "subscribed", subscribed)
			for _, bytes := range []int{1, 20_000, 60_000} {
				data := fmt.Sprintf("%0*d", bytes, 7)
				sent, err := json.Marshal(data)
				ok(t, err)
				_, err = s.Publish(soon(t), sent)
				ok(t, err)
				equal(t, "data", next(t, "a publication", heard), string(sent))
			}
			c.Close()
		}
	}
}
