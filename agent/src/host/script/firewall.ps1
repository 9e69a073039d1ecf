$ErrorActionPreference = 'Stop'
try { [Console]::OutputEncoding = [Text.Encoding]::UTF8 } catch { }
function Part($block) {
  try { @{ value = @(& $block) } }
  catch {
    @{ hresult = [int64]$_.Exception.HResult; cim = [int64]$_.Exception.NativeErrorCode
       category = [int]$_.CategoryInfo.Category; reason = [string]$_.CategoryInfo.Reason }
  }
}
@{
  version = 1
  services = Part { Get-Service -Name BFE, MpsSvc | ForEach-Object { @{ name = $_.Name; status = [int]$_.Status } } }
  profiles = Part { Get-NetFirewallProfile -PolicyStore ActiveStore | ForEach-Object {
    @{ name = $_.Name; enabled = [int]$_.Enabled; inbound = [int]$_.DefaultInboundAction
       inbound_rules = [int]$_.AllowInboundRules; excluded = @($_.DisabledInterfaceAliases) } } }
  others = Part { Get-CimInstance -Namespace 'root\SecurityCenter2' -ClassName FirewallProduct | ForEach-Object {
    @{ state = $_.productState } } }
} | ConvertTo-Json -Depth 6 -Compress
