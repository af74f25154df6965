package hell

import (
	"strings"

	"github.com/posthorn/posthorn"
)

var long = strings.Repeat("a", 63)

// GoodURLs may be registered with the default settings.
var GoodURLs = []string{
	"https://partner.example.com/webhooks/xpath", "https://partner.example.com", "https://PARTNER.Example.COM/", "HTTPS://partner.example.com/",
	"https://partner.example.com:443/", "https://partner.example.com:8443/?a=b&c=%20", "https://a.b.c.d.e.example.co.uk/",
	"https://xn--mnchen-3ya.example.com/", "https://1password.com/", "https://3com.net/", "https://1.2.3.4.example.com/",
	"https://93.184.215.14/", "https://93.184.215.14:9443/", "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
	// every form of a public IPv6 address
	"https://[2606:4700:4700::1111]/", "https://[2606:4700:4700:0:0:0:0:1111]/", "https://[2606:4700:4700:0000:0000:0000:0000:1111]:8443/?a=b",
	"https://[2606:2800:021f:cb07:6820:80DA:AF6B:8B2C]/", "https://[2606:2800:0:0:0:0:0:1]/", "https://[2606:4700:4700:0:0::1111]/", "HTTPS://[2A00:1450::0A]/x",
	// last labels that are on no list: judged at the dial
	"https://a.newtld/", "https://hooks.partner.zz/", "https://a.cafe/", "https://a.7f/", "https://a.x0/", "https://partner.svc.example.com/", "https://cluster.local.example.com/",
	"https://" + long + "." + long + "." + long + ".example.com/", "https://partner.example.com?x", "https://partner.example.com/?u=https://x",
	"https://partner.example.com/" + strings.Repeat("a", posthorn.MaxURLLength-len("https://partner.example.com/")),
}

// BadURLs may not: by their form, their host, their port, or where they lead.
var BadURLs = []string{
	// form
	"", " ", "partner.example.com", "/webhooks", "//partner.example.com/", "https:", "https://", "https:///path", "https:partner.example.com",
	"http://partner.example.com/", "ftp://partner.example.com/", "file:///etc/passwd", "unix:///run/x.sock", "javascript:alert(1)",
	"https://user@partner.example.com/", "https://user:pass@partner.example.com/", "https://@partner.example.com/", "https://a@b@partner.example.com/",
	"https://partner.example.com/#x", "https://partner.example.com/#", "https://partner.example.com/a b", "https://partner.example.com/?a b",
	"https://partner.example.com/\r\nHost: x", "https://partner.example.com/\x00", "https://partner.example.com/ü", "https://pärtner.example.com/",
	"https://partner.example.com\\@10.0.0.1/", "https://%70artner.example.com/", "https://partner.example.com%00/", "https://partner.example.com/%zz",
	"https://partner.example.com/" + strings.Repeat("a", posthorn.MaxURLLength),
	// hosts
	"https://partner.example.com./", "https://.example.com/", "https://a..example.com/", "https://-a.example.com/", "https://a-.example.com/",
	"https://a_b.example.com/", "https://_a.example.com/", "https://a_.example.com/", "https://partner.example.c_m/", "https://*.example.com/", "https://" + long + "a.example.com/", "https://" + strings.Repeat("a.", 127) + "com/",
	"https://1.2.3/", "https://127.1/", "https://0/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://0x7f.1/",
	"https://example.0x7f/", "https://example.127/", "https://127.0.0.1.5/", "https://010.0.0.1/", "https://1.2.3.4./",
	"https://１２７.０.０.１/", "https://127。0。0。1/", "https://①②⑦.⓪.⓪.①/", "https://ⓛocalhost/",
	"https://[93.184.215.14]/", "https://[2606::1%25lo]/",
	"https://[2606::1%lo]/", "https://[::ffff:93.184.215.14]/", "https://[2606::1/", "https://2606::1/", "https://[partner.example.com]/", "https://[]/",
	// ports
	"https://partner.example.com:/", "https://partner.example.com:0/", "https://partner.example.com:0443/", "https://partner.example.com:65536/",
	"https://partner.example.com:-1/", "https://partner.example.com:a/", "https://partner.example.com:80/", "https://partner.example.com:22/",
	"https://partner.example.com:444/", "https://partner.example.com:1023/", "https://partner.example.com:6379/", "https://93.184.215.14:5432/",
	// names of private networks
	"https://localhost/", "https://LOCALHOST/", "https://a.localhost/", "https://localhost.localdomain/", "https://partner/", "https://a.local/",
	"https://metadata.google.internal/", "https://a.corp/", "https://a.home.arpa/", "https://1.0.0.127.in-addr.arpa/", "https://a.onion/",
	"https://a.test/", "https://a.invalid/", "https://a.lan/", "https://a.intranet/", "https://a.private/",
	"https://hooks.shop.svc/", "https://hooks.shop.SVC:8443/", "https://hooks.shop.svc.cluster/", "https://hooks.shop.svc.cluster.local/", "https://10-0-0-1.shop.pod.cluster.local/",
	"https://svc/", "https://cluster/", "https://hooks.service.consul/", "https://a.docker/", "https://a.lxd/", "https://a.localnet/", "https://a.mail/", "https://a.home/",
	// addresses
	"https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data/", "https://[::1]/", "https://[fe80::1]/", "https://0.0.0.0/",
	// other ways to write what is refused above
	"https://[0000:0000:0000:0000:0000:0000:0000:0001]/", "https://[FE80:0:0:0:0:0:0:1]/", "https://[FD00:0EC2:0:0:0:0:0:0254]/", "https://[2001:0DB8:0:0:0:0:0:1]/",
	"https://[0:0:0:0:0:FFFF:5DB8:D70E]/", "https://[0:0:0:0:0:ffff:127.0.0.1]/", "https://[0064:FF9B:0:0:0:0:7F00:0001]/", "https://[02606:4700:4700::1111]/", "https://[2606:4700:4700:0:0:0:0:0:1111]/",
	"https://[2606:4700:4700:0:0:0:1111]/", "https://[2606::4700::1111]/", "https://[2606:4700:4700:0:0:0:0:1111%251]/", "https://[2606:4700:4700:0:0:0:0:1111]:22/",
	"https://[::127.0.0.1]/", "https://[::7f00:1]/", "https://[::ffff:7f00:1]/", "https://[::ffff:0:7f00:1]/", "https://[64:ff9b::7f00:1]/", "https://[64:ff9b::a9fe:a9fe]/",
	"https://[64:ff9b:1::7f00:1]/", "https://[2002:7f00:1::]/", "https://[2001:0:7f00:1::]/", "https://[fec0::1]/", "https://[4000::1]/", "https://[fd00:ec2::254]/",
	"https://[fe80::1%25eth0]/", "https://[::1%25lo]/", "https://[::1%25]/", "https://[::1]:/", "https://[::1]extra/", "https://[::1].example.com/", "https://[0:0:0:0:0:0:0:1]/",
	"https://[::]/", "https://[ff02::1]/", "https://[v1.fe80]/", "https://168.63.129.16/", "https://100.100.100.200/", "https://192.0.0.192/", "https://255.255.255.255/",
	"https://localhost./", "https://LocalHost:8420/", "https://localhost.localdomain:8420/", "https://sub.localhost:8420/", "https://ip6-localhost/", "https://a.LOCAL/", "https://a.Internal:8443/",
	"https://127.0.0.1./", "https://127.0.0.1%2f/", "https://127.0.0.1%00.example.com/", "https://127.0.0.1\t.example.com/", "https://127.0.0.1#@partner.example.com/", "https://127.0.0.1?@partner.example.com/",
	"https://partner.example.com@127.0.0.1/", "https://partner.example.com:443@127.0.0.1/", "https://partner.example.com%40127.0.0.1/", "https://127.0.0.1:443:443/", "https://partner.example.com:443:22/",
	"https://partner.example.com;@127.0.0.1/", "https://partner.example.com,127.0.0.1/", "https://partner.example.com&@127.0.0.1/", "https:\\\\127.0.0.1/", "https:/\\127.0.0.1/", "https:///127.0.0.1/", "https:127.0.0.1",
	"https://0x7f.0x0.0x0.0x1/", "https://0X7F000001/", "https://017700000001/", "https://0b1.0.0.1/", "https://127.0.0.0x1/", "https://1e3/", "https://00000177.0.0.1/", "https://127.000.000.001/", "https://4294967296/",
	"https://１２７。０。０。１/", "https://ⅼocalhost/", "https://loc\u00adalhost/", "https://localhost\u200b/", "https://xn--.com./", "https://\u202e1.0.0.721/", "https://partner.example.com\u2044@127.0.0.1/",
	"https://partner.example.com:+443/", "https://partner.example.com: 443/", "https://partner.example.com:44３/", "https://partner.example.com:0x1bb/", "https://partner.example.com:4294967739/",
	"https://partner.example.com\n.evil.example.com/", "https://partner.example.com/\n", "\thttps://partner.example.com/", "https://partner.example.com/ ", "https://partner.example.com/\x7f", "https://partner.example.com/\u2028",
	"gopher://127.0.0.1:6379/_FLUSHALL", "dict://127.0.0.1/", "ws://partner.example.com/", "wss://partner.example.com/", "httpss://partner.example.com/", "https+unix://%2frun%2fx/", "jar:https://partner.example.com!/", "data:text/plain,x",
	"https://" + strings.Repeat(long+".", 4) + "com/", "https://" + strings.Repeat("a", 1900) + ".com/", "https://" + strings.Repeat("a.", 900) + "com/", "https://[" + strings.Repeat("0:", 500) + "1]/",
}
