$ErrorActionPreference = 'Stop'
try { [Console]::OutputEncoding = [Text.Encoding]::UTF8 } catch { }
function Part($block) {
  try { @{ value = @(& $block) } }
  catch {
    @{ hresult = [int64]$_.Exception.HResult; cim = [int64]$_.Exception.NativeErrorCode
       category = [int]$_.CategoryInfo.Category; reason = [string]$_.CategoryInfo.Reason }
  }
}
function Ask($volume, $name, $with) {
  try { Invoke-CimMethod -InputObject $volume -MethodName $name -Arguments $with }
  catch { @{ ReturnValue = [int64]$_.Exception.HResult } }
}
$storage = 'root\Microsoft\Windows\Storage'
$bitlocker = 'root\CIMV2\Security\MicrosoftVolumeEncryption'
@{
  version = 1
  computer = Part { Get-CimInstance Win32_ComputerSystem | ForEach-Object { @{ vendor = $_.Manufacturer; model = $_.Model } } }
  volumes = Part { Get-CimInstance Win32_Volume | ForEach-Object {
    @{ id = $_.DeviceID; path = $_.Name; file_system = $_.FileSystem; drive_type = $_.DriveType; capacity = $_.Capacity
       boot = $_.BootVolume; system = $_.SystemVolume } } }
  partitions = Part {
    $bus = @{}
    Get-CimInstance -Namespace $storage -ClassName MSFT_Disk | ForEach-Object { $bus[[string]$_.Number] = $_.BusType }
    Get-CimInstance -Namespace $storage -ClassName MSFT_Partition | ForEach-Object {
      @{ paths = @($_.AccessPaths); gpt_type = $_.GptType; mbr_type = $_.MbrType; bus = $bus[[string]$_.DiskNumber] } } }
  encryptable = Part { Get-CimInstance -Namespace $bitlocker -ClassName Win32_EncryptableVolume | ForEach-Object {
    $volume = $_
    $conversion = Ask $volume GetConversionStatus @{ PrecisionFactor = [uint32]0 }
    $protection = Ask $volume GetProtectionStatus @{}
    $lock = Ask $volume GetLockStatus @{}
    $method = Ask $volume GetEncryptionMethod @{}
    $keys = Ask $volume GetKeyProtectors @{ KeyProtectorType = [uint32]0 }
    $types = @()
    foreach ($key in @($keys.VolumeKeyProtectorID)) {
      if ($key) { $types += (Ask $volume GetKeyProtectorType @{ VolumeKeyProtectorID = $key }).KeyProtectorType }
    }
    @{ id = $volume.DeviceID; volume_type = $volume.VolumeType
       conversion_result = $conversion.ReturnValue; conversion = $conversion.ConversionStatus
       percent = $conversion.EncryptionPercentage
       protection_result = $protection.ReturnValue; protection = $protection.ProtectionStatus
       lock_result = $lock.ReturnValue; lock = $lock.LockStatus
       method_result = $method.ReturnValue; method = $method.EncryptionMethod
       keys_result = $keys.ReturnValue; keys = @($types) } } }
  page_files = Part { Get-CimInstance Win32_PageFileUsage | ForEach-Object { @{ path = $_.Name } } }
} | ConvertTo-Json -Depth 6 -Compress
