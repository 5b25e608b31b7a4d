"""Reads what testssl.sh found: a finding of a severity above information is a fault, except those listed.

Usage: testssl.py FILE    written by testssl --jsonfile
"""

import json
import sys

# Findings about the certificate of the test or about what the server does on purpose.
EXPECTED = {
    # The local openssl, not the server.
    "engine_problem",
    "cert_trust_wildcard", "cert_chain_of_trust", "cert_revocation", "OCSP_stapling", "DNS_CAArecord",
    "cert_crlDistributionPoints", "cert_ocspURL", "certificate_transparency", "cert_caIssuers",
    "cert_expirationStatus", "cert_notAfter", "cert_extlifeSpan",
    # The page of tests has no such header.
    "HSTS", "security_headers", "HTTP_headerAge", "banner_application", "banner_server", "HTTP_clock_skew",
    # Chosen by the client among suites that are all good.
    "cipher_order", "cipher-tls1_2_xc02b", "cipherlist_OBSOLETED",
}

with open(sys.argv[1]) as file:
    findings = json.load(file)
faults = [
    finding for finding in findings
    if finding["severity"] not in ("OK", "INFO", "DEBUG", "LOW")
    and not any(finding["id"].startswith(name) for name in EXPECTED)
]
for fault in faults:
    print(f"{fault['severity']}: {fault['id']}: {fault['finding']}")
print(f"testssl.sh: {len(findings)} findings, {len(faults)} faults")
sys.exit(bool(faults) or not findings)
