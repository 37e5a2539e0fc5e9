# Print why this host should be rebooted; nothing if there is no reason.
if [ -e /run/reboot-required ]; then
	echo "an upgrade asks for it (/run/reboot-required)"
elif command -v needs-restarting >/dev/null; then
	needs-restarting -r >/dev/null 2>&1 || echo "an upgrade asks for it (needs-restarting)"
elif command -v needrestart >/dev/null && needrestart -b -k 2>/dev/null | grep -q 'KSTA: [23]'; then
	echo "a newer kernel is installed (needrestart)"
elif [ -e "/boot/vmlinuz-$(uname -r)" ]; then
	newest=$(ls -v /boot/vmlinuz-* | tail -n 1)
	[ "$newest" = "/boot/vmlinuz-$(uname -r)" ] || echo "a newer kernel is installed ($newest)"
fi
