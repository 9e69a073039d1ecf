$ErrorActionPreference = 'Stop'
try { [Console]::OutputEncoding = [Text.Encoding]::UTF8 } catch { }
function Part($block) {
  try { @{ value = @(& $block) } }
  catch {
    @{ hresult = [int64]$_.Exception.HResult; cim = [int64]$_.Exception.NativeErrorCode
       category = [int]$_.CategoryInfo.Category; reason = [string]$_.CategoryInfo.Reason }
  }
}
function Time($date) { if ($date) { $date.ToString('yyyy-MM-ddTHH:mm:ssZ', [Globalization.CultureInfo]::InvariantCulture) } }
$current = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
$policies = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate'
$managed = 'HKLM:\SOFTWARE\Microsoft\PolicyManager\current\device\Update'
$settings = 'HKLM:\SOFTWARE\Microsoft\WindowsUpdate'
@{
  version = 1
  pending = Part {
    $searcher = (New-Object -ComObject Microsoft.Update.Session).CreateUpdateSearcher()
    $searcher.Online = $false
    $searcher.Search('IsInstalled=0').Updates | ForEach-Object {
      @{ id = $_.Identity.UpdateID; revision = $_.Identity.RevisionNumber; title = $_.Title
         articles = @($_.KBArticleIDs | ForEach-Object { $_ }); severity = $_.MsrcSeverity; hidden = $_.IsHidden
         categories = @($_.Categories | ForEach-Object { $_.CategoryID }) } } }
  history = Part {
    $searcher = (New-Object -ComObject Microsoft.Update.Session).CreateUpdateSearcher()
    $count = $searcher.GetTotalHistoryCount()
    if ($count -gt 200) { $count = 200 }
    if ($count -gt 0) { $searcher.QueryHistory(0, $count) | ForEach-Object {
      @{ time = Time $_.Date; operation = [int]$_.Operation; result = [int]$_.ResultCode; id = $_.UpdateIdentity.UpdateID
         categories = @($_.Categories | ForEach-Object { $_.CategoryID }) } } } }
  automatic = Part {
    $automatic = New-Object -ComObject Microsoft.Update.AutoUpdate
    @{ service = $automatic.ServiceEnabled; level = $automatic.Settings.NotificationLevel
       searched = Time $automatic.Results.LastSearchSuccessDate } }
  policy = Part { Get-ItemProperty -Path ($policies + '\AU') | ForEach-Object {
    @{ off = $_.NoAutoUpdate; options = $_.AUOptions; server = $_.UseWUServer } } }
  held_by_policy = Part { Get-ItemProperty -Path $policies | ForEach-Object { @{ days = $_.DeferQualityUpdatesPeriodInDays } } }
  held_by_manager = Part { Get-ItemProperty -Path $managed | ForEach-Object {
    @{ days = $_.DeferQualityUpdatesPeriodInDays; server = $_.UpdateServiceUrl } } }
  held_by_settings = Part { Get-ItemProperty -Path ($settings + '\UX\Settings') | ForEach-Object {
    @{ days = $_.DeferQualityUpdatesPeriodInDays } } }
  pause = Part { Get-ItemProperty -Path ($settings + '\UpdatePolicy\Settings') | ForEach-Object {
    @{ status = $_.PausedQualityStatus } } }
  restart = Part { @{ required = (New-Object -ComObject Microsoft.Update.SystemInfo).RebootRequired } }
  build = Part { Get-ItemProperty -Path $current | ForEach-Object { @{ build = $_.CurrentBuildNumber; revision = $_.UBR } } }
} | ConvertTo-Json -Depth 6 -Compress
