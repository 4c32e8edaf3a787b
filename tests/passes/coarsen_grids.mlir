// RUN: coarsen-grids
// A mean that is zero but for noise: its grid is a sixteenth of the accumulator's step 0.5 / 4, whatever was observed.
// CHECK:      "hbir.reduce"
// CHECK-NEXT: "qat.fake_quant"{{.*}}!quant.uniform<i8:f32, 7.812500e-03:3>
// What is coarse enough stays.
// CHECK:      "hbir.sub"
// CHECK-NEXT: "qat.fake_quant"{{.*}}!quant.uniform<i8:f32, 2.500000e-01>
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x4xf32>) -> tensor<2x4xf32>}> ({
  ^bb0(%x: tensor<2x4xf32>):
    %a = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32, 0.5>}> : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %m = "hbir.reduce"(%a) <{axes = array<i64: 1>, keep = true, kind = "mean"}> : (tensor<2x4xf32>) -> tensor<2x1xf32>
    %n = "qat.fake_quant"(%m) <{grid = !quant.uniform<i8:f32, 1.0e-9:3>}> : (tensor<2x1xf32>) -> tensor<2x1xf32>
    %d = "hbir.sub"(%a, %n) : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
    %e = "qat.fake_quant"(%d) <{grid = !quant.uniform<i8:f32, 0.25>}> : (tensor<2x4xf32>) -> tensor<2x4xf32>
    "func.return"(%e) : (tensor<2x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Operands of a concat stay on one grid when one of them is coarsened: 1 / 16 of the step of the clip's operand.
// CHECK:      "hbir.clip"
// CHECK-NEXT: "qat.fake_quant"{{.*}}!quant.uniform<i8:f32, 6.250000e-02>
// CHECK:      "qat.fake_quant"(%arg1) <{grid = !quant.uniform<i8:f32, 6.250000e-02>}>
// CHECK-NEXT: "hbir.concat"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x4xf32>}> ({
  ^bb0(%x: tensor<1x2xf32>, %y: tensor<1x2xf32>):
    %a = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32, 1.0>}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %k = "hbir.clip"(%a) <{min = -0.01 : f64, max = 0.01 : f64}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %b = "qat.fake_quant"(%k) <{grid = !quant.uniform<i8:f32, 0.0001>}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %z = "qat.fake_quant"(%y) <{grid = !quant.uniform<i8:f32, 0.0001>}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %c = "hbir.concat"(%b, %z) <{axis = 1 : i64}> : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x4xf32>
    %d = "hbir.clip"(%c) <{min = 0.0 : f64}> : (tensor<1x4xf32>) -> tensor<1x4xf32>
    "func.return"(%d) : (tensor<1x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
