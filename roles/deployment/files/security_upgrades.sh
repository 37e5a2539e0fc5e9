# Print the packages for which the distribution has security upgrades, one a line.
set -e
if command -v apt-get >/dev/null; then
	apt-get -qq update
	# Inst NAME [OLD] (NEW Debian-Security:12/stable-security [amd64])
	apt-get -s -qq upgrade | sed -n 's/^Inst \([^ ]*\) .*[Ss]ecurity.*/\1/p'
else
	dnf -q updateinfo list --security | awk 'NF >= 3 {print $NF}'
fi
