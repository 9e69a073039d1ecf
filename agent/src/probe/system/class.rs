//! Whether a host is a laptop, a desktop, a server, a virtual machine or a container.

use std::path::Path;

use muster_proto::fact::{Cause, HostClass, Reading};

use crate::host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES};

use super::read_text;

/// Files that systemd, Docker and Podman leave in a container.
const MARKS: [&str; 3] = ["/run/systemd/container", "/.dockerenv", "/run/.containerenv"];

/// Bit of the features of Xen that its control domain has.
const XENFEAT_DOM0: u32 = 11;

/// What tells the class, as far as it could be read.
#[derive(Debug, Default)]
struct Signs {
    /// A container manager left its mark.
    container: bool,
    /// The processor or the firmware says that a hypervisor runs it.
    hypervisor: bool,
    /// `chassis_type` of the SMBIOS (DSP0134, section 7.4.1).
    chassis: Option<u32>,
}

pub(super) fn look(host: &dyn Host) -> Reading<HostClass> {
    let exists = |path: &str| host.metadata(Path::new(path)).is_ok();
    // systemd and others set `container` for PID 1 (systemd's CONTAINER_INTERFACE); only root may read it.
    let environ = host.read(Path::new("/proc/1/environ"), SMALL_FILE_BYTES).unwrap_or_default();
    let cpuinfo = host.read(Path::new("/proc/cpuinfo"), FILE_BYTES);
    let chassis = read_text(host, "/sys/class/dmi/id/chassis_type");
    let vendor = read_text(host, "/sys/class/dmi/id/sys_vendor").unwrap_or_default();
    let product = read_text(host, "/sys/class/dmi/id/product_name").unwrap_or_default();
    // An image made from a container keeps its marks, and a host's own administrator could leave one. Container managers give what
    // they start a PID namespace of its own; the number of the initial one is fixed (PROC_PID_INIT_INO of linux/proc_ns.h).
    let is_initial = host
        .read_link(Path::new("/proc/self/ns/pid"))
        .is_ok_and(|target| target.as_os_str().as_encoded_bytes() == b"pid:[4026531836]");
    let signs = Signs {
        container: !is_initial
            && (MARKS.iter().any(|mark| exists(mark))
                || environ.split(|&byte| byte == 0).any(|variable| variable.starts_with(b"container="))),
        hypervisor: !is_control_domain(host)
            && (exists("/sys/hypervisor/type")
                || cpuinfo.as_deref().is_ok_and(names_a_hypervisor)
                || is_virtual_hardware(vendor.trim(), product.trim())),
        chassis: chassis.as_ref().ok().and_then(|text| text.trim().parse().ok()),
    };
    let class = decide(&signs);
    if let Err(error) = &cpuinfo
        && !matches!(class, Some(HostClass::Container | HostClass::Vm))
    {
        // A virtual machine may have any chassis.
        return Reading::Unknown { unknown: host::unknown("read /proc/cpuinfo", error) };
    }
    match (class, chassis) {
        (Some(class), _) => Reading::Known(class),
        (None, Err(error)) => {
            Reading::Unknown { unknown: host::unknown("read /sys/class/dmi/id/chassis_type", &error) }
        }
        (None, Ok(text)) => Reading::unknown(Cause::Undecidable, format!("chassis type {}", text.trim())),
    }
}

/// Returns whether this is the system that Xen lets control the machine (`XENFEAT_dom0` of Xen's public/features.h): it sees the
/// hardware, and the hypervisor below is a part of it. One in another's guest has the names of virtual hardware, and is a guest.
fn is_control_domain(host: &dyn Host) -> bool {
    let features = read_text(host, "/sys/hypervisor/properties/features").unwrap_or_default();
    let is_control = u32::from_str_radix(features.trim(), 16).is_ok_and(|features| features & 1 << XENFEAT_DOM0 != 0);
    let name = |file: &str| read_text(host, &format!("/sys/class/dmi/id/{file}")).unwrap_or_default();
    is_control && !is_virtual_hardware(name("sys_vendor").trim(), name("product_name").trim())
}

fn decide(signs: &Signs) -> Option<HostClass> {
    if signs.container {
        return Some(HostClass::Container);
    }
    if signs.hypervisor {
        return Some(HostClass::Vm);
    }
    match signs.chassis? {
        8..=10 | 14 | 30..=32 => Some(HostClass::Laptop),
        3..=7 | 13 | 15 | 16 | 24 | 35 | 36 => Some(HostClass::Desktop),
        17 | 23 | 25 | 28 | 29 => Some(HostClass::Server),
        _ => None,
    }
}

/// Returns whether /proc/cpuinfo has the CPUID bit that hypervisors set, or names user-mode Linux.
fn names_a_hypervisor(cpuinfo: &[u8]) -> bool {
    cpuinfo.split(|&byte| byte == b'\n').any(|line| {
        line.starts_with(b"flags") && line.split(|&byte| byte == b' ').any(|flag| flag == b"hypervisor")
            || line.starts_with(b"vendor_id") && line.ends_with(b"User Mode Linux")
    })
}

/// Returns whether the names of the hardware are those of a virtual machine.
pub(in crate::probe) fn is_virtual_hardware(vendor: &str, product: &str) -> bool {
    const VENDORS: &[&str] =
        &["QEMU", "KVM", "VMware", "innotek GmbH", "Xen", "Bochs", "Parallels", "OpenStack", "DigitalOcean", "BHYVE"];
    // What hypervisors call a guest below the name of a maker who may sell machines too.
    const PRODUCTS: &[&str] = &[
        "KVM",
        "Bochs",
        "RHEV Hypervisor",
        "Standard PC (",
        "HVM domU",
        "VirtualBox",
        "Apple Virtualization",
        "OpenStack",
    ];
    VENDORS.iter().any(|name| vendor.starts_with(name))
        || PRODUCTS.iter().any(|name| product.starts_with(name))
        || matches!(vendor, "oVirt" | "KubeVirt")
        || matches!(
            (vendor, product),
            ("Nutanix", "AHV")
                | ("Alibaba Cloud", "Alibaba Cloud ECS")
                | ("Tencent Cloud", "CVM")
                | ("Hetzner", "vServer")
                | ("UpCloud", "Server")
        )
        || vendor == "Scaleway" && product.starts_with("SCW-")
        || vendor == "Vultr" && ["VC2", "VHF", "VHP"].iter().any(|plan| product.starts_with(plan))
        || vendor == "Microsoft Corporation" && product == "Virtual Machine"
        || vendor == "Google" && product == "Google Compute Engine"
        || vendor == "Amazon EC2" && !product.contains("metal")
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;

    use super::*;
    use crate::host::Recorded;

    #[test]
    fn a_container_outweighs_a_hypervisor_and_that_the_chassis() {
        let signs = |container, hypervisor, chassis| Signs { container, hypervisor, chassis };
        for (signs, expected) in [
            (signs(true, true, Some(10)), Some(HostClass::Container)),
            (signs(false, true, Some(10)), Some(HostClass::Vm)),
            (signs(false, false, Some(10)), Some(HostClass::Laptop)),
            (signs(false, false, Some(3)), Some(HostClass::Desktop)),
            (signs(false, false, Some(23)), Some(HostClass::Server)),
            (signs(false, false, Some(1)), None),
            (signs(false, false, None), None),
        ] {
            assert_eq!(decide(&signs), expected, "{signs:?}");
        }
    }

    #[test]
    fn a_mark_of_a_container_holds_outside_of_the_initial_pid_namespace_alone() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/system/user-mode-linux");
        let text = |path: &str| PathText::from_bytes(path.as_bytes());
        for mark in MARKS {
            for (namespace, expected) in [("pid:[4026532277]", true), ("pid:[4026531836]", false)] {
                let mut host = Recorded::at(&case).unwrap();
                let index = host.index_mut();
                let any = *index.metadata.values().next().unwrap();
                index.metadata.retain(|path, _| !MARKS.contains(&path.as_str()));
                index.metadata.insert(text(mark), any);
                index.links.insert(text("/proc/self/ns/pid"), text(namespace));
                let is_container = look(&host) == Reading::Known(HostClass::Container);
                assert_eq!(is_container, expected, "{mark} {namespace}");
            }
        }
    }

    #[test]
    fn the_control_domain_of_xen_is_what_its_hardware_is() {
        // As /sys shows a PowerEdge whose Xen lets it control the machine, a guest, and a Xen in another's guest.
        for (features, vendor, expected) in [
            ("00002fff\n", "Dell Inc.\n", HostClass::Server),
            ("00002705\n", "Dell Inc.\n", HostClass::Vm),
            ("\n", "Dell Inc.\n", HostClass::Vm),
            ("00002fff\n", "QEMU\n", HostClass::Vm),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let index = r#"{"version": 1, "captured": "2026-11-26T00:00:00Z", "metadata": {"/sys/hypervisor/type":
                {"kind": "file", "size_bytes": 4096, "mode": 292, "uid": 0, "gid": 0, "device": [0, 22], "inode": 7}}}"#;
            std::fs::write(folder.path().join("index.json"), index).unwrap();
            for (path, text) in [
                ("/sys/hypervisor/properties/features", features),
                ("/sys/class/dmi/id/sys_vendor", vendor),
                ("/sys/class/dmi/id/product_name", "PowerEdge R650\n"),
                ("/sys/class/dmi/id/chassis_type", "23\n"),
                ("/proc/cpuinfo", "flags\t\t: fpu hypervisor\n"),
            ] {
                let file = folder.path().join("files").join(&path[1..]);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, text).unwrap();
            }
            assert_eq!(look(&Recorded::at(folder.path()).unwrap()), Reading::Known(expected), "{features} {vendor}");
        }
    }

    #[test]
    fn a_hypervisor_is_named_by_the_processor_or_the_firmware() {
        assert!(names_a_hypervisor(b"processor\t: 0\nflags\t\t: fpu hypervisor lahf_lm\n"));
        assert!(names_a_hypervisor(b"vendor_id\t: User Mode Linux\n"));
        assert!(!names_a_hypervisor(b"flags\t\t: fpu hypervisors\nbugs\t: hypervisor\n"));
        assert!(is_virtual_hardware("Microsoft Corporation", "Virtual Machine"));
        assert!(!is_virtual_hardware("Microsoft Corporation", "Surface Pro"));
        assert!(!is_virtual_hardware("Amazon EC2", "m5.metal"));
        for (vendor, product) in [
            ("Red Hat", "KVM"),
            ("KVM Server", ""),
            ("Nutanix", "AHV"),
            ("oVirt", "RHEL"),
            ("Red Hat", "RHEV Hypervisor"),
            ("KubeVirt", "None"),
            ("Tencent Cloud", "CVM"),
            ("Alibaba Cloud", "Alibaba Cloud ECS"),
            ("Hetzner", "vServer"),
            ("Scaleway", "SCW-PLAY2-MICRO"),
            ("UpCloud", "Server"),
            ("Vultr", "VC2"),
            ("RDO", "OpenStack Compute"),
            ("HUAWEICLOUD", "OpenStack Nova"),
            ("Apple Inc.", "Apple Virtualization Generic Platform"),
        ] {
            assert!(is_virtual_hardware(vendor, product), "{vendor} {product}");
        }
        for (vendor, product) in [
            ("Nutanix", "NX-3060-G5"),
            ("Hetzner", "AX41"),
            ("Apple Inc.", "Macmini9,1"),
            ("Supermicro", "Super Server"),
            ("Scaleway", "EM-A210R"),
        ] {
            assert!(!is_virtual_hardware(vendor, product), "{vendor} {product}");
        }
    }
}
