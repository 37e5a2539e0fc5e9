# Decide whether the systemd of the present user runs the deployment. Usage: sh -c SCRIPT PREFIX UNIT RUNTIME_DIRECTORY
# 0: it runs it already, or may run services without a session (lingering). 1: it may not. 2: supervisord runs the deployment already.
# 3: it may, but does not run.
! grep -qxF "WorkingDirectory=$0" "$1" 2>/dev/null || exit 0
[ ! -e "$0/etc/supervisord.conf" ] || exit 2
if [ -e "/var/lib/systemd/linger/$(id -un)" ]; then
	[ -e "$2/systemd/private" ] || exit 3
	exit 0
fi
# systemd asks polkit; without polkit only root may enable lingering.
pkcheck --action-id org.freedesktop.login1.set-self-linger --process $$ >/dev/null 2>&1 || exit 1
