$ErrorActionPreference = 'Stop'
try { [Console]::OutputEncoding = [Text.Encoding]::UTF8 } catch { }
function Part($block) {
  try { @{ value = @(& $block) } }
  catch {
    @{ hresult = [int64]$_.Exception.HResult; cim = [int64]$_.Exception.NativeErrorCode
       category = [int]$_.CategoryInfo.Category; reason = [string]$_.CategoryInfo.Reason }
  }
}
$current = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
$firmware = 'HKLM:\SYSTEM\CurrentControlSet\Control\SecureBoot\State'
@{
  version = 1
  os = Part { Get-CimInstance Win32_OperatingSystem | ForEach-Object {
    @{ version = $_.Version; caption = $_.Caption; product_type = $_.ProductType } } }
  computer = Part { Get-CimInstance Win32_ComputerSystem | ForEach-Object {
    @{ vendor = $_.Manufacturer; model = $_.Model; system_type = $_.PCSystemType } } }
  bios = Part { Get-CimInstance Win32_BIOS | ForEach-Object { @{ serial = $_.SerialNumber } } }
  registry = Part { Get-ItemProperty -Path $current | ForEach-Object { @{ revision = $_.UBR } } }
  machine = Part { Get-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\Cryptography' | ForEach-Object { @{ id = $_.MachineGuid } } }
  secure_boot = Part { Get-ItemProperty -Path $firmware | ForEach-Object { @{ enabled = $_.UEFISecureBootEnabled } } }
  device_guard = Part { Get-CimInstance -Namespace 'root\Microsoft\Windows\DeviceGuard' -ClassName Win32_DeviceGuard |
    ForEach-Object { @{ user_mode = $_.UsermodeCodeIntegrityPolicyEnforcementStatus
                        kernel_mode = $_.CodeIntegrityPolicyEnforcementStatus } } }
} | ConvertTo-Json -Depth 6 -Compress
